"""The configuration: four layers, every problem at once with its exact words, no secret in any."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Secret, SecretUrl, Settings, cookie_keys, load, read, warnings
from proxy.config.grammar import Address, decode_keys, is_loopback, listen_address, origin, upstream_address
from proxy.config.keys import key_file, new_key
from proxy.config.reference import show
from proxy.config.registry import declared
from proxy.core.identity import allowed
from proxy.core.session import Identity
from proxy.errors import ConfigError

CANARY = "canary-71a8"
MINIMAL: dict[str, Any] = {
    "issuer": "https://login.example.com/realms/main",
    "client_id": "my-app",
    "client_secret": CANARY,
    "upstream": "http://127.0.0.1:9000",
    "public_url": "https://app.example.com",
    "store": "memory:",
}


def configure(**changes: Any) -> Settings:
    """Settings from the minimal file with some keys changed; None removes one."""
    toml = {key: value for key, value in (MINIMAL | changes).items() if value is not None}
    return load(env={}, toml=toml)


def refusal(env: dict[str, str] | None = None, **changes: Any) -> list[str]:
    """Every problem of a configuration that must not load."""
    toml = {key: value for key, value in (MINIMAL | changes).items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        load(env=env or {}, toml=toml)
    assert CANARY not in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


# --- the contract -------------------------------------------------------------------------

CONTRACT = {
    "NIGHTPORTER_ISSUER": "https://login.example.com/realms/main",
    "NIGHTPORTER_CLIENT_ID": "my-app",
    "NIGHTPORTER_CLIENT_SECRET": "secret",
    "NIGHTPORTER_SCOPES": "openid profile email offline_access",
    "NIGHTPORTER_UPSTREAM": "http://127.0.0.1:9000",
    "NIGHTPORTER_PUBLIC_URL": "https://app.example.com",
    "NIGHTPORTER_LISTEN": "0.0.0.0:8080",
    "NIGHTPORTER_OPERATIONS_LISTEN": "127.0.0.1:8081",
    "NIGHTPORTER_STORE": "memory:",
    "NIGHTPORTER_COOKIE_KEYS": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
}
REST_OF_THE_CONTRACT = {
    "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
    "NIGHTPORTER_AUTHORIZE_PARAMS": '{"access_type": "offline", "prompt": "consent"}',
    "NIGHTPORTER_PUBLIC_PATHS": "/static/ /healthz",
    "NIGHTPORTER_TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8",
    "NIGHTPORTER_CLIENT_AUTH": "post",
    "NIGHTPORTER_ALLOW": "example.com",
    "NIGHTPORTER_IDLE_S": "604800",
    "NIGHTPORTER_ABSOLUTE_S": "2592000",
    "NIGHTPORTER_INSECURE_HTTP": "true",
}


def test_the_flat_variables_up_to_cookie_keys_are_enough() -> None:
    settings = load(env=CONTRACT)
    assert settings.public_url == "https://app.example.com"
    assert settings.scopes == ("openid", "profile", "email", "offline_access")
    assert settings.listen_address == Address("0.0.0.0", 8080)
    assert settings.cookie_key_bytes() == (bytes(32),)
    assert warnings(settings) == ("store is memory: every session ends when this process stops.",)


def test_every_variable_of_the_contract_loads(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    settings = load(env=CONTRACT | REST_OF_THE_CONTRACT | {"NIGHTPORTER_CA_FILE": str(ca)})
    assert settings.pass_access_token is True
    assert settings.authorize_params == {"access_type": "offline", "prompt": "consent"}
    assert settings.public_paths == ("/static/", "/healthz")
    assert settings.trusted_proxies == ("10.0.0.0/8", "fd00::/8")
    assert settings.client_auth == "post"
    assert settings.allow == ("example.com",)
    assert (settings.idle_s, settings.absolute_s) == (604_800, 2_592_000)
    assert settings.insecure_http is True
    assert settings.ca_file == str(ca)


def test_provider_stands_in_for_the_issuer() -> None:
    settings = configure(issuer=None, provider="google", allow=["example.com"])
    assert (settings.provider, settings.issuer) == ("google", "")


def test_the_defaults_are_the_documented_ones() -> None:
    settings = configure()
    assert settings.listen == "127.0.0.1:8080"
    assert settings.operations_listen == "127.0.0.1:8081"
    assert settings.prefix == "/oauth2"
    assert (settings.refresh.wait_s, settings.refresh.margin_s, settings.refresh.margin_share) == (
        10,
        60,
        0.2,
    )
    assert (settings.cache.ttl_s, settings.cache.stale_s, settings.cache.max_bytes) == (30, 300, 7 << 20)
    assert (settings.op.timeout_s, settings.op.max_answer_bytes) == (15, 1 << 20)
    assert (settings.limits.max_head_bytes, settings.limits.max_fields) == (65_536, 100)
    assert settings.timeouts.drain_s == 30


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        configure().issuer = "https://evil.example"  # type: ignore[misc]


# --- layers -------------------------------------------------------------------------------


def test_set_beats_environment_beats_file_beats_default() -> None:
    env = {"NIGHTPORTER_REFRESH_WAIT_S": "4", "NIGHTPORTER_IDLE_S": "200"}
    toml = MINIMAL | {"refresh": {"wait_s": 3, "margin_s": 30}, "idle_s": 100}
    loaded = read(env=env, toml=toml, overrides=["refresh.wait_s=5"])
    assert loaded.settings.refresh.wait_s == 5
    assert loaded.settings.idle_s == 200
    assert loaded.settings.refresh.margin_s == 30
    assert loaded.settings.refresh.margin_share == 0.2
    assert {key: loaded.origins[key] for key in ("refresh.wait_s", "idle_s", "refresh.margin_s")} == {
        "refresh.wait_s": "--set",
        "idle_s": "environment",
        "refresh.margin_s": "file",
    }
    assert loaded.origins["refresh.margin_share"] == "default"


def test_a_file_is_named_by_argument_or_variable(tmp_path: Path) -> None:
    path = tmp_path / "np.toml"
    path.write_text("".join(f'{key} = "{value}"\n' for key, value in MINIMAL.items()) + "idle_s = 100.5\n")
    other = tmp_path / "other.toml"
    other.write_text(path.read_text().replace("100.5", "200"))
    by_variable = read(env={"NIGHTPORTER_CONFIG": str(path)})
    assert by_variable.settings.idle_s == 100.5
    assert by_variable.files == (str(path),)
    assert load(env={"NIGHTPORTER_CONFIG": str(path)}, file=str(other)).idle_s == 200


def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{CANARY}\n")
    by_variable = read(
        env={"NIGHTPORTER_CLIENT_SECRET_FILE": str(path)}, toml=MINIMAL | {"client_secret": "other"}
    )
    assert by_variable.settings.client_secret.reveal() == CANARY
    assert by_variable.files == (str(path),)
    by_toml = configure(client_secret=None, client_secret_file=str(path))
    assert by_toml.client_secret.reveal() == CANARY
    env = {"NIGHTPORTER_STORE_FILE": str(tmp_path / "store")}
    (tmp_path / "store").write_text("memory:\n")
    assert load(env=env, toml=MINIMAL).store.reveal() == "memory:"


def test_a_secret_file_that_is_overridden_is_not_read() -> None:
    env = {"NIGHTPORTER_CLIENT_SECRET": "direct"}
    toml = {key: value for key, value in MINIMAL.items() if key != "client_secret"}
    settings = load(env=env, toml=toml | {"client_secret_file": "/nowhere"})
    assert settings.client_secret.reveal() == "direct"


def test_an_empty_variable_counts_as_not_set() -> None:
    env = {"NIGHTPORTER_LISTEN": "", "NIGHTPORTER_CLIENT_SECRET_FILE": "", "NIGHTPORTER_IDLE_S": ""}
    assert load(env=env, toml=MINIMAL).listen == "127.0.0.1:8080"


def test_variables_of_a_kubernetes_service_are_not_ours() -> None:
    env = {
        "NIGHTPORTER_SERVICE_HOST": "10.0.0.1",
        "NIGHTPORTER_SERVICE_PORT": "80",
        "NIGHTPORTER_SERVICE_PORT_HTTP": "80",
        "NIGHTPORTER_PORT": "tcp://10.0.0.1:80",
        "NIGHTPORTER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "NIGHTPORTER_PORT_80_TCP_ADDR": "10.0.0.1",
        "NIGHTPORTER_REDIS_SERVICE_HOST": "10.0.0.2",
    }
    load(env=env, toml=MINIMAL)


def test_no_variable_of_ours_looks_like_one_of_a_service() -> None:
    variables = [setting.variable for setting in declared().values()]
    assert len(set(variables)) == len(variables)
    assert not [name for name in variables if "_SERVICE_" in name or "_PORT" in name]


@pytest.mark.parametrize("text", ["/a,/b", "/a /b", "/a,\n /b", " /a , /b "])
def test_lists_in_a_variable_are_separated_by_blanks_or_commas(text: str) -> None:
    assert load(env={"NIGHTPORTER_PUBLIC_PATHS": text}, toml=MINIMAL).public_paths == ("/a", "/b")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://App.Example.com:443/", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
    ],
)
def test_a_public_url_is_kept_as_browsers_write_an_origin(given: str, kept: str) -> None:
    assert configure(public_url=given).public_url == kept


def test_the_first_public_url_is_the_main_one() -> None:
    settings = configure(public_url=["https://a.example", "https://b.example"])
    assert settings.public_url == "https://a.example"
    assert settings.public_urls == ("https://a.example", "https://b.example")


# --- what is refused, in exactly these words -----------------------------------------------

BAD_STORE = "write redis://host:6379/0, sqlite:/path/to/sessions.db, or memory: for a trial"
BAD_KEYS = "write keys of `nightporter keygen`: 32 bytes each as URL-safe base64, newest first"
BAD_UPSTREAM = "write http://host:port, https://host or unix:/path of the app, without a path behind the port"
BAD_PUBLIC_URL = "write scheme and host only, e.g. https://app.example.com"
BAD_LISTEN = "write host:port, [v6]:port or unix:/path, e.g. 127.0.0.1:8080"
BAD_ALLOW = "write a domain, email:ADDRESS, group:NAME, sub:SUBJECT, or everyone"
BAD_FILE = "name a readable file that holds the value and nothing else"
BAD_PATH = "write plain paths: /healthz for one page, /static/ for everything below it"
OWN_PAGES = "leave it out; sign-in pages need no rule, and an app that is all public no Nightporter"
OPEN = "set allow to domains, email:ADDRESS, group:NAME or sub:SUBJECT, or to the word everyone"

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "neither-issuer-nor-provider": (
        {"issuer": None},
        "issuer: neither issuer nor provider is set; set issuer to the OP's issuer URL, or provider "
        "to a known "
        "one such as google",
    ),
    "provider-without-its-issuer": (
        {"issuer": None, "provider": "keycloak"},
        "issuer: not set, and keycloak has no issuer of its own; set issuer too, e.g. "
        "https://login.example.com/realms/REALM",
    ),
    "provider-with-another-issuer": (
        {"provider": "google", "allow": "everyone"},
        "issuer: not the issuer of provider google, https://accounts.google.com; leave one of the two out",
    ),
    "issuer-without-scheme": (
        {"issuer": "login.example.com"},
        "issuer: not an absolute URL (not http:// or https://); write the issuer of the OP's "
        "discovery document, "
        "e.g. https://login.example.com/realms/main",
    ),
    "issuer-in-the-clear": (
        {"issuer": "http://login.example.com"},
        "issuer: plain http to a host that is not this machine; write https://, or set insecure_http "
        "= true for "
        "a trial",
    ),
    "issuer-with-query": (
        {"issuer": "https://login.example.com/?tenant=1"},
        "issuer: a URL with a query or a fragment; cut it off at the `?` or `#`",
    ),
    "issuer-is-the-discovery-document": (
        {"issuer": "https://login.example.com/.well-known/openid-configuration"},
        "issuer: the discovery document's URL; cut off /.well-known/openid-configuration",
    ),
    "client-id-missing": (
        {"client_id": None},
        "client_id: not set; set it to the client id that the OP shows for this app",
    ),
    "secret-missing": (
        {"client_secret": None},
        "client_secret: not set, and no client_key either; set client_secret or client_key, or "
        'client_auth = "none" for a public client',
    ),
    "secret-missing-for-basic": (
        {"client_secret": None, "client_auth": "basic"},
        'client_secret: not set, but client_auth is "basic"; set client_secret or '
        "NIGHTPORTER_CLIENT_SECRET_FILE",
    ),
    "key-missing-for-private-key-jwt": (
        {"client_auth": "private_key_jwt"},
        'client_key: not set, but client_auth is "private_key_jwt"; set client_key or '
        "NIGHTPORTER_CLIENT_KEY_FILE to a PEM or JWK private key",
    ),
    "key-is-a-public-one": (
        {"client_key": "-----BEGIN PUBLIC KEY-----"},
        "client_key: neither a PEM private key nor a JWK; write a PEM block (BEGIN PRIVATE KEY) or a "
        "private JWK "
        "(a JSON object)",
    ),
    "secret-for-a-public-client": (
        {"client_auth": "none"},
        'client_secret: set, but client_auth is "none"; remove it, or write client_auth = "auto"',
    ),
    "client-auth-unknown": (
        {"client_auth": "tls"},
        "client_auth: the text 'tls' (client_auth); write one of auto, basic, post, private_key_jwt, "
        "client_secret_jwt, none",
    ),
    "upstream-missing": ({"upstream": None}, f"upstream: not set; {BAD_UPSTREAM}"),
    "upstream-without-scheme": (
        {"upstream": "127.0.0.1:9000"},
        f"upstream: not an address of the app (not http:// or https://); {BAD_UPSTREAM}",
    ),
    "upstream-with-path": (
        {"upstream": "http://127.0.0.1:9000/app"},
        f"upstream: not an address of the app (more than an origin); {BAD_UPSTREAM}",
    ),
    "upstream-with-credentials": (
        {"upstream": f"http://user:{CANARY}@app:9000"},
        f"upstream: not an address of the app (no host, or credentials in it); {BAD_UPSTREAM}",
    ),
    "upstream-with-half-credentials": (
        {"upstream": f"http://user:{CANARY}"},
        f"upstream: not an address of the app (no port from 1 to 65535); {BAD_UPSTREAM}",
    ),
    "upstream-is-nightporter": (
        {"upstream": "http://127.0.0.1:8080"},
        "upstream: the address that Nightporter listens on; write the app's own address",
    ),
    "upstreams-without-a-path": (
        {"upstreams": {"admin.example.com": "http://127.0.0.1:9001"}},
        "upstreams: 'admin.example.com', no path; a host alone is written host/; write host/path = address, "
        'e.g. "/api/" = "http://127.0.0.1:9001"',
    ),
    "upstreams-that-lead-nowhere": (
        {"upstreams": {"/api/": "127.0.0.1:9001"}},
        "upstreams: '/api/' leads to no address of an app (not http:// or https://); write host/path = "
        'address, e.g. "/api/" = "http://127.0.0.1:9001"',
    ),
    "upstreams-twice": (
        {"upstreams": {"/api/": "http://127.0.0.1:9001", "/api": "http://127.0.0.1:9002"}},
        "upstreams: '/api' twice; name each rule once",
    ),
    "upstreams-to-itself": (
        {"upstreams": {"/api/": "http://127.0.0.1:8080"}},
        "upstreams: the address that Nightporter listens on; write the app's own address",
    ),
    "tls-without-its-key": (
        {"tls": {"cert_file": "/etc/ssl/cert.pem"}},
        "tls.key_file: not set, the other one is; name both files, or neither",
    ),
    "upstream-tls-that-cannot-be-read": (
        {"upstream_tls": {"ca_file": "/does/not/exist.pem"}},
        "upstream_tls.ca_file: /does/not/exist.pem cannot be read; name a PEM file that Nightporter may read",
    ),
    "admin-for-other-machines": (
        {"admin_listen": "0.0.0.0:8083"},
        "admin_listen: an address that other machines reach; write a loopback address or a unix socket, e.g. "
        "127.0.0.1:8083 or unix:/run/np-admin.sock",
    ),
    "admin-on-the-public-listener": (
        {"admin_listen": "127.0.0.1:8080"},
        "admin_listen: the address of another listener; write a loopback address or a unix socket, e.g. "
        "127.0.0.1:8083 or unix:/run/np-admin.sock",
    ),
    "forward-auth-on-the-public-listener": (
        {"forward_auth": {"listen": "127.0.0.1:8080"}},
        "forward_auth.listen: the address of another listener; write an address that only the engine "
        "reaches, e.g. 127.0.0.1:8082 or unix:/run/np-auth.sock",
    ),
    "forward-auth-nowhere": (
        {"forward_auth": {"listen": "8082"}},
        "forward_auth.listen: not an address to listen on (no port); write an address that only the engine "
        "reaches, e.g. 127.0.0.1:8082 or unix:/run/np-auth.sock",
    ),
    "workers-on-one-process's-store": (
        {"workers": 2},
        "workers: 2, and this store serves one process; keep sessions in Redis, or write workers = 1",
    ),
    "via-with-a-blank": (
        {"via": "night porter"},
        "via: 'night porter', no pseudonym; write letters, digits and -",
    ),
    "public-url-missing": (
        {"public_url": None},
        "public_url: not set; set it to the address people type, e.g. https://app.example.com",
    ),
    "public-url-with-path": (
        {"public_url": "https://app.example.com/app"},
        f"public_url: not an origin (more than an origin); {BAD_PUBLIC_URL}",
    ),
    "public-url-in-the-clear": (
        {"public_url": "http://app.example.com"},
        "public_url: plain http on a host that is not this machine; write https:// (TLS may end before "
        "Nightporter), or set insecure_http = true for a trial",
    ),
    "public-url-twice": (
        {"public_url": ["https://app.example.com", "https://APP.example.com/"]},
        "public_url: the same origin twice; name each origin once",
    ),
    "listen-without-host": (
        {"listen": ":8080"},
        f"listen: not an address to listen on (not a host name); {BAD_LISTEN}",
    ),
    "listen-without-port": (
        {"listen": "localhost"},
        f"listen: not an address to listen on (no port); {BAD_LISTEN}",
    ),
    "listen-twice": (
        {"operations_listen": "127.0.0.1:8080"},
        "operations_listen: the same address as listen; give health and metrics an address of their "
        "own, e.g. "
        "127.0.0.1:8081",
    ),
    "store-missing": ({"store": None}, f"store: not set; {BAD_STORE}"),
    "store-unknown": ({"store": "postgres://db"}, f"store: not a kind of store that is known; {BAD_STORE}"),
    "store-sqlite-as-a-url": (
        {"store": "sqlite:///var/lib/sessions.db"},
        f"store: sqlite: without the path of a file; {BAD_STORE}",
    ),
    "store-sqlite-nowhere": (
        {"store": "sqlite:/nowhere/sessions.db"},
        "store: sqlite: in a directory that does not exist; make the directory, writable for "
        "Nightporter's user, "
        "or write another path",
    ),
    "store-sentinel-without-a-name": (
        {"store": f"redis+sentinel://u:{CANARY}@s1,s2:26379", "cookie_keys": "A" * 43},
        "store: no name of the primary: it stands behind the Sentinels, as in …:26379/mymaster; write "
        "redis+sentinel://user:password@host1,host2:26379/name",
    ),
    "store-redis-of-another-port": (
        {"store": f"redis://:{CANARY}@redis:70000", "cookie_keys": "A" * 43},
        "store: a port that is not from 1 to 65535; write redis://user:password@host:6379/0",
    ),
    "store-redis-without-keys": (
        {"store": "redis://redis"},
        f"cookie_keys: not set, and this store keeps none; {BAD_KEYS}",
    ),
    "store-tls-files-without-tls": (
        {"store": "redis://redis", "cookie_keys": "A" * 43, "store_ca_file": "/ca.pem"},
        "store_ca_file: set, but the store's URL has no TLS; write rediss://, or remove it",
    ),
    "store-ca-that-is-not-there": (
        {"store": "rediss://redis", "cookie_keys": "A" * 43, "store_ca_file": "/nowhere/ca.pem"},
        "store_ca_file: /nowhere/ca.pem cannot be read; name a PEM file that Nightporter's user may read",
    ),
    "store-replicas-of-sqlite": (
        {"store_wait_replicas": 1},
        "store_wait_replicas: set, but only Redis has replicas; remove it",
    ),
    "store-prefix-with-braces": (
        {"store_prefix": "{np}"},
        "store_prefix: '{np}'; write up to 40 letters, digits and : . _ - such as np:",
    ),
    "store-sentinel-password-without-sentinels": (
        {"store_sentinel_password": CANARY},
        "store_sentinel_password: set, but the store has no Sentinels; remove it, or write redis+sentinel://",
    ),
    "store-password-twice": (
        {"store": "redis://:a@redis", "store_password": CANARY, "cookie_keys": "A" * 43},
        "store_password: set, and the store's URL has one, too; keep one of them",
    ),
    "store-password-of-sqlite": (
        {"store_password": CANARY},
        "store_password: set, but only Redis takes one; remove it",
    ),
    "store-user-without-a-password": (
        {"store": "redis://redis", "store_username": "np", "cookie_keys": "A" * 43},
        "store_username: set without a password; set store_password",
    ),
    "cookie-key-short": (
        {"cookie_keys": "A" * 43 + "\n" + "QUJD"},
        f"cookie_keys: key 2 holds 3 bytes; {BAD_KEYS}",
    ),
    "cookie-key-of-other-letters": (
        {"cookie_keys": "+" * 43},
        f"cookie_keys: key 1 is not URL-safe base64; {BAD_KEYS}",
    ),
    "cookie-key-twice": (
        {"cookie_keys": f"{'A' * 43} {'A' * 43}="},
        f"cookie_keys: key 2 is there twice; {BAD_KEYS}",
    ),
    "cookie-keys-only-blanks": ({"cookie_keys": " "}, f"cookie_keys: no key in it; {BAD_KEYS}"),
    "idle-zero": (
        {"idle_s": 0},
        "idle_s: the number 0 (idle_s); write a number of seconds from 1 to 31622400",
    ),
    "idle-not-a-number": (
        {"idle_s": float("nan")},
        "idle_s: the number nan (idle_s); write a number of seconds from 1 to 31622400",
    ),
    "number-as-text-in-a-file": (
        {"idle_s": "100"},
        "idle_s: the text '100' (idle_s); write a number of seconds from 1 to 31622400",
    ),
    "wait-longer-than-two-calls": (
        {"refresh": {"wait_s": 31}},
        "refresh.wait_s: 31, longer than two requests to the OP may take; write at most 2 x "
        "op.timeout_s = 30",
    ),
    "connect-longer-than-the-call": (
        {"op": {"timeout_s": 5, "connect_timeout_s": 6}},
        "op.connect_timeout_s: 6, longer than op.timeout_s = 5; write op.connect_timeout_s <= op.timeout_s",
    ),
    "lives-crossed": (
        {"refresh": {"min_life_s": 100, "max_life_s": 50}},
        "refresh.min_life_s: 100, longer than refresh.max_life_s = 50; write refresh.min_life_s <= "
        "refresh.max_life_s",
    ),
    "prefix-with-slash": (
        {"prefix": "/oauth2/"},
        "prefix: '/oauth2/'; write a path that begins with / and does not end with it, e.g. /oauth2",
    ),
    "public-path-covers-all": (
        {"public_paths": ["/"]},
        f"public_paths: '/', which covers our own pages at /oauth2; {OWN_PAGES}",
    ),
    "public-path-is-the-prefix": (
        {"public_paths": ["/oauth2/"]},
        f"public_paths: '/oauth2/', which covers our own pages at /oauth2; {OWN_PAGES}",
    ),
    "public-path-below-the-prefix": (
        {"public_paths": ["/oauth2/session"]},
        "public_paths: '/oauth2/session', which lies below our own prefix; leave it out: the paths below the "
        "prefix are Nightporter's own",
    ),
    "public-path-relative": (
        {"public_paths": "static/"},
        f"public_paths: 'static/', no plain path; {BAD_PATH}",
    ),
    "public-path-with-pattern": (
        {"public_paths": ["/a/*"]},
        f"public_paths: '/a/*', no plain path; {BAD_PATH}",
    ),
    "public-path-climbing": (
        {"public_paths": ["/a/../b"]},
        f"public_paths: '/a/../b', no plain path; {BAD_PATH}",
    ),
    "ping-path-with-query": (
        {"ping_path": "/ping?x"},
        "ping_path: '/ping?x', no plain path; write e.g. /ping",
    ),
    "ping-path-everything": (
        {"ping_path": "/"},
        "ping_path: '/', no plain path; write e.g. /ping",
    ),
    "ready-path-below-the-prefix": (
        {"ready_path": "/oauth2/ready"},
        "ready_path: '/oauth2/ready', which lies below our own prefix; write e.g. /ping",
    ),
    "ready-path-is-the-ping-path": (
        {"ping_path": "/up", "ready_path": "/up"},
        "ready_path: the same as ping_path; write another path, or leave one out",
    ),
    "trusted-proxy-with-host-bits": (
        {"trusted_proxies": ["10.1.2.3/8"]},
        "trusted_proxies: '10.1.2.3/8', no network; write CIDRs, e.g. 10.0.0.0/8",
    ),
    "trusted-proxy-by-name": (
        {"trusted_proxies": ["balancer"]},
        "trusted_proxies: 'balancer', no network; write CIDRs, e.g. 10.0.0.0/8 or 192.0.2.7",
    ),
    "post-logout-url-relative": (
        {"post_logout_urls": ["/bye"]},
        "post_logout_urls: '/bye', no URL to return to; write absolute https URLs, e.g. "
        "https://www.example.com/bye",
    ),
    "header-that-frames": (
        {"headers": {"Content_Length": "sub"}},
        "headers: Content_Length, which carries the request; choose another name, e.g. X-Department",
    ),
    "header-no-token": (
        {"headers": {"X Name": "sub"}},
        "headers: 'X Name', no header name; write letters, digits and -",
    ),
    "header-twice": (
        {"headers": {"X-A": "a", "x_a": "b"}},
        "headers: x_a twice (spelling aside); name each header once",
    ),
    "header-without-claim": (
        {"headers": {"X-A": "a..b"}},
        'headers: X-A without a claim; write the claim\'s name, e.g. "department"',
    ),
    "allow-an-address": (
        {"allow": ["ada@example.com"]},
        f"allow: 'ada@example.com', no rule; {BAD_ALLOW}; here email:ada@example.com",
    ),
    "allow-a-wildcard": ({"allow": ["*.example.com"]}, f"allow: '*.example.com', no rule; {BAD_ALLOW}"),
    "allow-a-kind-that-nothing-matches": (
        {"allow": ["realm:8eaef023"]},
        f"allow: 'realm:8eaef023', no rule; {BAD_ALLOW}",
    ),
    "allow-a-tenant-where-there-are-none": (
        {"allow": ["tenant:8eaef023"]},
        "allow: 'tenant:8eaef023', but this provider's accounts belong to no tenant; remove it; tenant: is "
        "for provider entra and google",
    ),
    "allow-a-group-where-nobody-tells-any": (
        {"issuer": None, "provider": "google", "allow": ["group:staff"]},
        "allow: 'group:staff', but Google tells no groups; write tenant:, a domain or email: instead",
    ),
    "allow-an-empty-group": ({"allow": ["group:"]}, f"allow: 'group:', no rule; {BAD_ALLOW}"),
    "allow-everyone-and-some": (
        {"allow": ["everyone", "example.com"]},
        "allow: everyone beside rules that then mean nothing; remove everyone, or everything else",
    ),
    "open-provider": (
        {"issuer": None, "provider": "google"},
        f"allow: not set, but anybody in the world can sign in at google; {OPEN}",
    ),
    "open-issuer": (
        {"issuer": "https://gitlab.com"},
        f"allow: not set, but anybody in the world can sign in at gitlab.com; {OPEN}",
    ),
    "open-tenant": (
        {"issuer": "https://login.microsoftonline.com/common/v2.0"},
        f"allow: not set, but anybody in the world can sign in at login.microsoftonline.com; {OPEN}",
    ),
    "authorize-params-of-ours": (
        {"authorize_params": {"state": "x", "prompt": "login"}},
        "authorize_params: state in it; remove it: Nightporter sets it",
    ),
    "scopes-without-openid": (
        {"scopes": "profile email"},
        "scopes: no openid in it; write openid first: without it there is no ID token",
    ),
    "ca-file-missing": (
        {"ca_file": "/nowhere/ca.pem"},
        "ca_file: /nowhere/ca.pem: No such file or directory; name a readable PEM file with the CA's "
        "certificates",
    ),
    "op-proxy-without-scheme": (
        {"op": {"proxy": f"u:{CANARY}@proxy:3128"}},
        "op.proxy: no URL of a proxy; write e.g. http://proxy.example.com:3128",
    ),
    "journal-nowhere": (
        {"journal": {"dir": "/nowhere"}},
        "journal.dir: /nowhere is no directory; make it, writable for Nightporter's user only (mode "
        "0700), or "
        "leave journal.dir empty",
    ),
    "unknown-key": ({"isuer": "x"}, "isuer: no such setting; did you mean issuer?"),
    "unknown-nested-key": (
        {"refresh": {"wiat_s": 3}},
        "refresh.wiat_s: no such setting; did you mean refresh.wait_s?",
    ),
    "unknown-and-unlike-anything": (
        {"zebra": 1},
        "zebra: no such setting; remove it; `nightporter config docs` lists all there are",
    ),
    "group-that-is-no-table": ({"limits": 3}, "limits: the number 3; write a table: [limits]"),
    "secret-that-is-no-text": (
        {"client_secret": 71_871_871},
        "client_secret: a number (client_secret); write a text",
    ),
    "secret-twice": (
        {"client_secret_file": "/run/secret"},
        "client_secret: client_secret and client_secret_file are both set; keep one of them",
    ),
    "secret-file-missing": (
        {"client_secret": None, "client_secret_file": "/nowhere/secret"},
        f"client_secret: client_secret_file: /nowhere/secret: No such file or directory; {BAD_FILE}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_configuration_is_refused_in_these_words(name: str) -> None:
    changes, message = REFUSED[name]
    assert refusal(**changes) == [message]


BY_ENVIRONMENT = {
    "NIGHTPORTER_IDLE_S": (
        "soon",
        "idle_s: the text 'soon' (NIGHTPORTER_IDLE_S); write a number of seconds from 1 to 31622400",
    ),
    "NIGHTPORTER_LIMITS_MAX_FIELDS": (
        "1.5",
        "limits.max_fields: the text '1.5' (NIGHTPORTER_LIMITS_MAX_FIELDS); write a whole number "
        "from 10 to 10000",
    ),
    "NIGHTPORTER_CACHE_MAX_BYTES": (
        "64MiB",
        "cache.max_bytes: the text '64MiB' (NIGHTPORTER_CACHE_MAX_BYTES); write a whole number of bytes from "
        "1048576 to 68719476736",
    ),
    "NIGHTPORTER_PASS_ACCESS_TOKEN": (
        "maybe",
        "pass_access_token: the text 'maybe' (NIGHTPORTER_PASS_ACCESS_TOKEN); write true or false",
    ),
    "NIGHTPORTER_AUTHORIZE_PARAMS": (
        "prompt=consent",
        "authorize_params: the text 'prompt=consent' (NIGHTPORTER_AUTHORIZE_PARAMS); write a table of texts "
        '(a JSON object in a variable), e.g. {"access_type": "offline", "prompt": "consent"}',
    ),
    "NIGHTPORTER_CLIENT_SECERT": (
        CANARY,
        "NIGHTPORTER_CLIENT_SECERT: no such variable; did you mean NIGHTPORTER_CLIENT_SECRET?",
    ),
    "NIGHTPORTER_ISSUER_FILE": (
        "/run/issuer",
        "NIGHTPORTER_ISSUER_FILE: no such variable; did you mean NIGHTPORTER_ISSUER?",
    ),
}


@pytest.mark.parametrize("variable", BY_ENVIRONMENT)
def test_a_wrong_variable_is_named(variable: str) -> None:
    value, message = BY_ENVIRONMENT[variable]
    assert refusal({variable: value}) == [message]


def test_all_problems_come_at_once() -> None:
    problems = refusal(
        {"NIGHTPORTER_IDLE_S": "soon"}, client_id=None, upstream="ftp://x", limits={"max_fields": 1}
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "limits.max_fields",
        "idle_s",
        "client_id",
        "upstream",
    ]


def test_one_mistake_makes_one_line() -> None:
    assert len(refusal(absolute_s="long", idle_s=10)) == 1


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * 70_000, "is longer than 65536 bytes"),
    ],
)
def test_a_secret_file_must_hold_a_secret(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    problems = refusal({"NIGHTPORTER_CLIENT_SECRET_FILE": str(path)})
    assert problems == [f"client_secret: NIGHTPORTER_CLIENT_SECRET_FILE: {path} {found}; {BAD_FILE}"]


def test_a_secret_and_its_file_in_the_environment_are_one_too_many() -> None:
    env = {"NIGHTPORTER_CLIENT_SECRET": CANARY, "NIGHTPORTER_CLIENT_SECRET_FILE": "/run/secret"}
    assert refusal(env) == [
        "client_secret: NIGHTPORTER_CLIENT_SECRET and NIGHTPORTER_CLIENT_SECRET_FILE are both set; "
        "keep one of them"
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("idle_s", "--set: no `=` in it; write --set key=value"),
        ("idle=3", "idle: no such setting; did you mean idle_s?"),
        (
            f"client_secret={CANARY}",
            "client_secret: a secret on the command line, where everybody sees it; write --set "
            "client_secret_file=PATH, or set NIGHTPORTER_CLIENT_SECRET_FILE",
        ),
        (
            "log_level=loud",
            "log_level: the text 'loud' (--set log_level); write one of debug, info, warning, error",
        ),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(env={}, toml=MINIMAL, overrides=[override])
    assert [str(problem) for problem in caught.value.problems] == [message]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"issuer = \n", "is not TOML at line 1, column "),
        (f'client_secret = "{CANARY}\n'.encode(), "is not TOML at line 1, column "),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_without_its_content(
    tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "np.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(env={}, file=str(path))
    assert str(caught.value.problems[0]).startswith(f"config: {path} {found}")
    assert len(caught.value.problems) == 1  # nothing is said to be missing: nobody knows
    assert CANARY not in str(caught.value)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="config: /nowhere: No such file or directory; name a readable TOML file"
    ):
        load(env={"NIGHTPORTER_CONFIG": "/nowhere"})


# --- what is allowed ----------------------------------------------------------------------

ALLOWED: dict[str, dict[str, Any]] = {
    "loopback-issuer": {"issuer": "http://127.0.0.1:4000"},
    "loopback-public-url": {"public_url": "http://localhost:8080"},
    "loopback-name": {"public_url": "http://app.localhost:8080"},
    "insecure-trial": {
        "issuer": "http://op.internal",
        "public_url": "http://app.internal",
        "post_logout_urls": "http://app.internal/bye",
        "insecure_http": True,
    },
    "public-client": {"client_secret": None, "client_auth": "none"},
    "key-instead-of-secret": {"client_secret": None, "client_key": "-----BEGIN PRIVATE KEY-----"},
    "jwk": {"client_auth": "private_key_jwt", "client_key": '{"kty": "EC"}'},
    "provider-and-issuer": {"provider": "keycloak"},
    "issuer-with-trailing-slash": {"issuer": "https://tenant.auth0.example/"},
    "one-tenant": {"issuer": "https://login.microsoftonline.com/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/v2.0"},
    "open-to-everyone": {"issuer": None, "provider": "google", "allow": "everyone"},
    "upstream-by-socket": {"upstream": "unix:/run/app.sock"},
    "no-upstream-where-an-engine-carries-the-traffic": {
        "upstream": None,
        "forward_auth": {"listen": "unix:/run/np-auth.sock", "engine": "caddy"},
    },
    "several-upstreams": {
        "upstreams": {"/api/": "https://api.internal", "admin.example.com/": "unix:/run/admin.sock"}
    },
    "listen-by-socket": {"listen": "unix:/run/np.sock", "operations_listen": "[::1]:8081"},
    "any-free-port": {"listen": "127.0.0.1:0", "operations_listen": "127.0.0.1:0"},
    "prefix-of-two": {"prefix": "/_np/auth", "public_paths": ["/_np-static/", "/auth"]},
    "path-that-begins-alike": {"public_paths": ["/oauth2-docs/", "/oauth"]},
    "group-with-blanks": {"allow": ["group:Domain Admins", "sub:248289761001"]},
    "egress-proxy": {"op": {"proxy": "http://user:p%40ss@proxy.example.com:3128"}},
    "short-session": {"idle_s": 1.5, "absolute_s": 2},
    "absolute-limit-alone": {"absolute_s": 60},
    "claim-in-an-object": {"headers": {"X-Roles": "realm_access.roles"}},
}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_right_configuration_loads(name: str) -> None:
    configure(**ALLOWED[name])


@pytest.mark.parametrize(
    "rule", ["everyone", "Example.com", "email:ada@example.com", "group:staff", "sub:248289761001"]
)
def test_every_kind_of_rule_that_loads_can_let_somebody_in_and_keep_somebody_out(rule: str) -> None:
    # A rule that loads and then matches nothing is how GHSA-652x-m2gr-hppm came about.
    rules = configure(allow=[rule]).allow
    ada = Identity("https://op", "248289761001", "ada@example.com", email_verified=True, groups=("staff",))
    eve = Identity("https://op", "1", "eve@example.org", email_verified=True, groups=("guests",))
    assert allowed(ada, rules)
    assert allowed(eve, rules) is (rule == "everyone")


def test_what_is_risky_is_warned_of() -> None:
    settings = configure(
        insecure_http=True, allow="everyone", trusted_proxies=["0.0.0.0/0", "10.0.0.0/8"], store="memory:"
    )
    assert warnings(settings) == (
        "store is memory: every session ends when this process stops.",
        "insecure_http is on: tokens and cookies may travel in the clear. For trials only.",
        "cookie_keys is not set: random keys are used until this process stops.",
        "allow is everyone: whoever has an account at the provider comes in.",
        "trusted_proxies holds 0.0.0.0/0: anybody may say who they come from.",
    )


# --- grammar ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::]:8080", Address("::", 8080)),
        ("localhost:80", Address("localhost", 80)),
        ("unix:/run/np.sock", Address(path="/run/np.sock")),
    ],
)
def test_listen_addresses(text: str, address: Address) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "a:b",
        "a:65536",
        "a:-1",
        "a:٣",
        "::1:80",
        "1.2.3:80",
        "unix:",
        "unix:run",
        "unix:/" + "x" * 107,
        "unix:/run/",
        "a b:80",
        "-a:80",
        "http://a:80",
        "*:80",
    ],
)
def test_what_is_no_listen_address(text: str) -> None:
    with pytest.raises(ValueError):
        listen_address(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://app", Address("app", 80)),
        ("http://app:9000/", Address("app", 9000)),
        ("https://app", Address("app", 443, tls=True)),
        ("http://[::1]:9000", Address("::1", 9000)),
        ("http://my_app.internal:1", Address("my_app.internal", 1)),
    ],
)
def test_upstream_addresses(text: str, address: Address) -> None:
    assert upstream_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http:app",
        "http://a:0",
        "http://a:",
        "http://a:x",
        "http://a/?b",
        "http://a#",
        "http://a@b",
        "ws://a",
        "http://a b",
        "http://ä",
        "http://a\\b",
        "http://[::1",
        "http://1.2.3.400",
        "http://a..b",
    ],
)
def test_what_is_no_upstream_address(text: str) -> None:
    with pytest.raises(ValueError):
        upstream_address(text)
    with pytest.raises(ValueError):
        origin(text)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.9.9.9", "::1"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example.com", "10.0.0.1", "127.0.0.1.example.com", "::2", "0.0.0.0"]
)
def test_hosts_that_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


# --- secrets ------------------------------------------------------------------------------


def test_a_secret_shows_nowhere() -> None:
    settings = configure(client_key="-----BEGIN PRIVATE KEY-----" + CANARY, cookie_keys="A" * 43)
    for text in (
        repr(settings),
        str(settings),
        f"{settings.client_secret}",
        f"{settings.client_secret!r:>40}",
    ):
        assert CANARY not in text
        assert "A" * 43 not in text
    assert settings.client_secret.reveal() == CANARY
    assert settings.client_secret == Secret(CANARY)
    assert settings.client_secret != Secret("another")
    assert not Secret()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://user:{CANARY}@host:6379/0", "redis://…@host:6379/0"),
        (f"redis://:{CANARY}@@{CANARY}@host", "redis://…@host"),
        (f"redis://host/0?password={CANARY}", "redis://host/0?…"),
        ("sqlite:/var/lib/np.db", "sqlite:/var/lib/np.db"),
    ],
)
def test_a_url_shows_without_its_password(url: str, shown: str) -> None:
    assert str(SecretUrl(url)) == shown
    assert CANARY not in repr(SecretUrl(url))


def test_a_secret_cannot_be_written_by_accident() -> None:
    import pickle

    with pytest.raises(TypeError):
        pickle.dumps(Secret(CANARY))


def test_show_prints_no_secret_and_is_toml(tmp_path: Path) -> None:
    import tomllib

    toml = MINIMAL | {
        "client_key": "-----BEGIN PRIVATE KEY-----" + CANARY,
        "op": {"proxy": f"http://u:{CANARY}@proxy:3128"},
        "headers": {"X-A": 'quo"te'},
    }
    text = show(read(env={"NIGHTPORTER_COOKIE_KEYS": "A" * 43}, toml=toml))
    assert CANARY not in text
    assert "A" * 43 not in text
    assert "# client_secret: set  # file" in text
    assert "# cookie_keys: set  # environment" in text
    assert 'proxy = "http://…@proxy:3128"  # file' in text
    again = tomllib.loads(text)
    assert again["headers"] == {"X-A": 'quo"te'}
    again["client_secret"] = "x"  # what is shown can be fed back, but for the secrets
    again["op"]["proxy"] = ""
    assert load(env={}, toml=again).headers == {"X-A": 'quo"te'}


# --- cookie keys --------------------------------------------------------------------------


def sqlite(tmp_path: Path, **changes: Any) -> Settings:
    return configure(store=f"sqlite:{tmp_path}/sessions.db", **changes)


def test_keys_are_made_beside_a_sqlite_store_and_kept(tmp_path: Path) -> None:
    settings = sqlite(tmp_path)
    assert not os.listdir(tmp_path)  # reading the configuration makes nothing
    keys = cookie_keys(settings)
    assert [len(key) for key in keys] == [32]
    assert cookie_keys(settings) == keys
    assert os.listdir(tmp_path) == ["sessions.db.keys"]
    assert stat.S_IMODE(os.stat(key_file(settings)).st_mode) == 0o600


def test_configured_keys_come_first(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    assert cookie_keys(sqlite(tmp_path, cookie_keys=f"{first}\n{second}=")) == decode_keys(
        f"{first},{second}"
    )
    assert not os.listdir(tmp_path)


def test_kept_keys_may_be_rotated_by_hand(tmp_path: Path) -> None:
    settings = sqlite(tmp_path)
    (old,) = cookie_keys(settings)
    path = Path(key_file(settings))
    path.write_text(f"{new_key()}\n{path.read_text()}")
    new, kept = cookie_keys(settings)
    assert kept == old != new


def test_keys_of_a_memory_store_are_new_each_time() -> None:
    assert cookie_keys(configure()) != cookie_keys(configure())


def _open_to_others(path: Path) -> None:
    path.write_text(new_key())
    path.chmod(0o644)


def _garbage(path: Path) -> None:
    path.write_text("?")
    path.chmod(0o600)


def _empty(path: Path) -> None:
    path.touch(0o600)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_open_to_others, "is open to other users"),
        (_garbage, "holds no cookie keys"),
        (_empty, "holds no cookie keys"),
        (Path.mkdir, "Is a directory"),
    ],
)
def test_a_key_file_that_cannot_be_trusted_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], found: str
) -> None:
    settings = sqlite(tmp_path)
    spoil(Path(key_file(settings)))
    with pytest.raises(ConfigError, match=found):
        cookie_keys(settings)
