"""Field rules: what is stripped in which spelling, what is rebuilt, how values are encoded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.cookies import names_for
from proxy.core.headers import (
    CACHE,
    CLAIM,
    DROP,
    FORWARDED,
    HOST,
    LENGTH,
    PASS,
    SET_COOKIE,
    HeaderPolicy,
    Trusted,
    identity_block,
    normal,
    private,
    sets_ours,
)
from proxy.errors import ConfigError

NAMES = [names_for("https://app.example.com")]
POLICY = HeaderPolicy(NAMES, ["https://app.example.com"])

IDENTITY = """
    x-forwarded-user x-forwarded-email x-forwarded-preferred-username x-forwarded-groups
    x-forwarded-access-token
    x-forwarded-id-token x-auth-request-user x-auth-request-redirect x-remote-user remote-user remote-groups
    remote-email remote-name x-authentik-username x-authentik-meta-jwks x-webauth-user x-nightporter-assertion
    x-pomerium-claim-email x-pomerium-jwt-assertion x-goog-authenticated-user-email x-goog-iap-jwt-assertion
    x-amzn-oidc-data oidc-claim-sub oidc-access-token x-forwarded-prefix x-original-url x-original-uri
    x-rewrite-url x-http-method-override x-original-method proxy-authorization proxy-connection proxy
""".split()  # noqa: SIM905


def spellings(name: str) -> set[str]:
    """A name with other separators and case, as far as tokens allow."""
    found = {name.title(), name.upper()}
    for separator in "_.~!|":
        found.add(name.replace("-", separator))
        found.add(name.replace("-", separator, 1).upper())
    return found


@pytest.mark.parametrize("name", IDENTITY)
def test_identity_names_are_stripped_in_every_spelling(name: str) -> None:
    for spelling in spellings(name):
        assert POLICY.request_kind(spelling.lower().encode()) == DROP, spelling


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"host", HOST),
        (b"content-length", LENGTH),
        (b"content_length", DROP),
        (b"transfer_encoding", DROP),
        (b"keep-alive", DROP),
        (b"keep_alive", DROP),
        (b"te", DROP),
        (b"trailer", DROP),
        (b"http2-settings", DROP),
        (b"x-forwarded-for", FORWARDED),
        (b"x_forwarded_for", DROP),
        (b"forwarded", FORWARDED),
        (b"x-real-ip", CLAIM),
        (b"x_real_ip", DROP),
        (b"authorization", PASS),
        (b"accept", PASS),
        (b"x-my_header", PASS),
        (b"sec-websocket-key", PASS),
    ],
)
def test_kinds_of_request_fields(name: bytes, kind: int) -> None:
    assert POLICY.request_kind(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"set-cookie", SET_COOKIE),
        (b"cache-control", CACHE),
        (b"keep-alive", DROP),
        (b"trailer", DROP),
        (b"transfer_encoding", DROP),
        (b"proxy-authenticate", DROP),
        (b"location", PASS),
        (b"x-forwarded-user", PASS),
    ],
)
def test_kinds_of_response_fields(name: bytes, kind: int) -> None:
    assert POLICY.response_kind(name) == kind


def test_names_that_we_set_are_stripped() -> None:
    policy = HeaderPolicy(NAMES, identity=["X-Staff-Id"], authorization_from_us=True)
    for name in (b"x-staff-id", b"x_staff_id", b"authorization", b"x-forwarded-user"):
        assert policy.request_kind(name) == DROP


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Cookie", "connection", "X Y", "", "X:Y", "X-Ü"])
def test_a_name_that_frames_or_routes_cannot_carry_identity(name: str) -> None:
    with pytest.raises(ConfigError):
        HeaderPolicy(NAMES, identity=[name])


# Values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("alice", b"alice"),
        ("a b", b"a b"),
        (" a ", b"%20a%20"),
        ("a\r\nX: y", b"a%0D%0AX: y"),
        ("a\x00\x7f\t", b"a%00%7F%09"),
        ("100%", b"100%25"),
        ("Zoë", b"Zo%C3%AB"),
        ("a,b", b"a,b"),
        (["a,b", "c"], b"a%2Cb,c"),
        (["a", "", "ü%"], b"a,%C3%BC%25"),
        ([], b""),
        ("", b""),
        ("\ud800", b"%ED%A0%80"),
    ],
)
def test_values_are_encoded(value: str | list[str], expected: bytes) -> None:
    assert identity_block([("X-Who", value)]) == b"X-Who: " + expected + b"\r\n"


@given(st.text(), st.text())
def test_two_texts_never_look_alike(one: str, other: str) -> None:
    first, second = (identity_block([("X", text)]) for text in (one, other))
    assert (first == second) == (one == other)
    line = first.removesuffix(b"\r\n")
    assert line.isascii()
    assert all(32 <= byte < 127 for byte in line)
    assert line[3:] == line[3:].strip()


@given(st.lists(st.text(min_size=1), max_size=3), st.lists(st.text(min_size=1), max_size=3))
def test_two_lists_never_look_alike(one: list[str], other: list[str]) -> None:
    assert (identity_block([("X", one)]) == identity_block([("X", other)])) == (one == other)


def test_a_name_that_is_no_token_is_refused() -> None:
    for name in ("X\r\nY", "X Y", "X:", ""):
        with pytest.raises(ValueError, match="token"):
            identity_block([(name, "v")])


def test_normal_form() -> None:
    assert normal(b"X_Forwarded.USER~9") == b"x-forwarded-user-9"


# Caches and cookies


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"public, max-age=60", b"private, max-age=60"),
        (b"max-age=60", b"private, max-age=60"),
        (b"s-maxage=60, max-age=5", b"private, max-age=5"),
        (b"S-MaxAge = 60", b"private"),
        (b"PUBLIC", b"private"),
        (b"no-store", b"no-store"),
        (b"private, max-age=5", b"private, max-age=5"),
        (b"public, no-cache", b"no-cache"),
        (b'private="set-cookie", public', b'private, private="set-cookie"'),
        (b'no-cache="a, public", max-age=1', b'private, no-cache="a, public", max-age=1'),
        (b"", b"private"),
        (b",,public,,", b"private"),
    ],
)
def test_cache_control_of_a_protected_answer(value: bytes, expected: bytes) -> None:
    assert private(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"__Host-np=x; Path=/", True),
        (b"__Host-np=", True),
        (b"__Host-np-flow-abc=x", True),
        (b" __Host-np = x", True),
        (b"=__Host-np=x", True),
        (b"__Host-np", True),
        (b"__Host-npx=1", False),
        (b"app=__Host-np", False),
        (b"app=1; __Host-np=x", False),
    ],
)
def test_the_app_cannot_set_our_cookies(value: bytes, expected: bool) -> None:
    assert sets_ours(value, NAMES) is expected


def test_our_cookies_are_cut_out() -> None:
    assert POLICY.cookie_line(b"a=1; __Host-np=x; __Host-np-flow-1=y; b=2") == b"Cookie: a=1; b=2"
    assert POLICY.cookie_line(b"__Host-np=x") == b""


# Forwarded


def getter(**fields: bytes) -> object:
    return {name.replace("_", "-").encode(): value for name, value in fields.items()}.get


def test_an_untrusted_peer_gets_the_public_url() -> None:
    assert POLICY.forwarded_block("192.0.2.7", b"evil.example") == (
        b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: app.example.com\r\nX-Forwarded-Port: 443\r\n"
    )
    assert b"X-Forwarded-For: unix:\r\n" in POLICY.forwarded_block("", b"")


def test_the_host_chooses_among_public_urls_only() -> None:
    policy = HeaderPolicy(NAMES, ["https://one.example", "http://two.example:8080"])
    assert b"Host: two.example:8080\r\nX-Forwarded-Port: 8080" in policy.forwarded_block(
        "1.2.3.4", b"TWO.example:8080"
    )
    assert b"Host: one.example\r\n" in policy.forwarded_block("1.2.3.4", b"one.example:443")
    assert b"Host: one.example\r\n" in policy.forwarded_block("1.2.3.4", b"three.example")


def test_a_trusted_peer_is_extended() -> None:
    get = {
        b"x-forwarded-for": b"203.0.113.9",
        b"x-forwarded-proto": b"HTTP",
        b"x-forwarded-host": b"pub.example",
        b"x-forwarded-port": b"8443",
    }.get
    assert POLICY.extended_block("10.0.0.1", b"in.example", False, get) == (
        b"X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Host: pub.example\r\nX-Forwarded-Port: 8443\r\n"
    )


def test_what_a_trusted_peer_says_must_be_sane() -> None:
    get = {b"x-forwarded-proto": b"gopher", b"x-forwarded-host": b"a, b", b"x-forwarded-port": b"x"}.get
    block = POLICY.extended_block("10.0.0.1", b"in.example", False, get)
    assert block == POLICY.forwarded_block("10.0.0.1", b"in.example")


def test_forwarded_and_via_are_written_where_asked_for() -> None:
    policy = HeaderPolicy(NAMES, ["https://app.example.com"], forwarded=True, via="np")
    block = policy.forwarded_block("2001:db8::1", b"")
    assert b'Forwarded: for="[2001:db8::1]";host="app.example.com";proto=https\r\n' in block
    assert b"Via: 1.1 np\r\n" in block
    extended = policy.extended_block("10.0.0.1", b"", False, {b"forwarded": b"for=192.0.2.1"}.get)
    assert b"Forwarded: for=192.0.2.1, for=10.0.0.1;" in extended


def test_request_ids_of_trusted_peers_must_be_sane() -> None:
    assert POLICY.request_id(b"abc-123") == b"abc-123"
    for bad in (b"", b"a b", b"a" * 129, b'a"b', b"\xff"):
        assert POLICY.request_id(bad) == b""


def test_trust_is_explicit() -> None:
    trusted = Trusted(["10.0.0.0/8", "2001:db8::/32", "unix"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::5", ""):
        assert address in trusted
    for address in ("11.0.0.1", "::1", "rubbish"):
        assert address not in trusted
    assert all(address not in Trusted() for address in ("127.0.0.1", "::1", ""))


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "::/0", "everyone", "10.0.0.0/33", ""])
def test_nobody_can_trust_everybody(cidr: str) -> None:
    with pytest.raises(ConfigError):
        Trusted([cidr])


def test_every_pair_of_separators_is_folded() -> None:
    for one, two in itertools.product("-_.~!#$%&'*+^`|", repeat=2):
        assert POLICY.request_kind(f"x{one}forwarded{two}user".encode()) == DROP
