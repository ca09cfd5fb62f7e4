"""Every setting, declared once: type, limits, default, help, secret or not.

A field's `Meta` is the whole declaration. From it come the TOML key, the environment
variable, the text of `--help`, the JSON schema and `docs/configuration.md` (see
`reference.py`); `load.py` reads values by it; what one field cannot say is in
the rules (`rules_op.py`, `rules_traffic.py`).
Units are in the names: ``_s`` seconds, ``_bytes`` bytes, ``_share`` a part of one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from proxy.config.grammar import Address, decode_keys, listen_address, upstream_address
from proxy.config.secret import Secret, SecretUrl

DAY_S = 86_400
YEAR_S = 366 * DAY_S
MIB = 1 << 20


def _say(text: str, *examples: Any) -> Meta:
    return Meta(description=text, examples=list(examples) or None)


def _number(text: str, low: float, high: float, *examples: Any) -> Meta:
    return Meta(description=text, ge=low, le=high, examples=list(examples) or None)


class Refresh(Struct, frozen=True, kw_only=True):
    """When tokens are renewed, and what is done when that cannot be told or fails."""

    wait_s: Annotated[
        float, _number("How long a request waits for a renewal when its access token has expired.", 0, 60)
    ] = 10.0
    margin_s: Annotated[
        float, _number("Longest time before the access token's end at which it becomes due.", 0, DAY_S)
    ] = 60.0
    margin_share: Annotated[
        float, _number("The same as a share of the token's life; the shorter of the two counts.", 0, 0.9)
    ] = 0.2
    expires_in_default_s: Annotated[
        float, _number("Life of an access token when the OP names none (`expires_in` missing).", 1, YEAR_S)
    ] = 3600.0
    min_life_s: Annotated[
        float, _number("A shorter `expires_in` counts as this: a token cannot be due at once.", 1, DAY_S)
    ] = 1.0
    max_life_s: Annotated[float, _number("A longer `expires_in` counts as this.", 1, YEAR_S)] = 2_592_000.0
    reuse: Annotated[
        Literal["profile", "none", "grace", "idempotent", "punished"],
        _say(
            "What the OP does with a refresh token that was already used: `none` it does not rotate, "
            "`grace` the old one works a little longer, `idempotent` the old one gives the same answer "
            "again, `punished` a second use ends the grant; `profile` asks the provider's profile."
        ),
    ] = "profile"
    intent_wait_s: Annotated[
        float,
        _number("How long a refusal waits for other open attempts before it is believed.", 0, 60),
    ] = 5.0
    groups_max_age_s: Annotated[
        float,
        _number("How long groups stay valid when renewals bring none; then rules on groups deny.", 0, YEAR_S),
    ] = 86_400.0


class Cache(Struct, frozen=True, kw_only=True):
    """Opened sessions, kept in memory so that a warm request costs no store access."""

    ttl_s: Annotated[
        float, _number("How long an opened session is used without asking the store.", 0, 600)
    ] = 30.0
    stale_s: Annotated[
        float,
        _number("How long it is used while the store is away, its access token being alive.", 0, DAY_S),
    ] = 300.0
    max_bytes: Annotated[
        int,
        _number(
            "Upper bound of the cache of each process: 7 MiB are some 2,000 sessions. Raise it where more "
            "people are active within half a minute: a request of one that is not in it reads the store.",
            MIB,
            1 << 36,
        ),
    ] = 7 * MIB


class Op(Struct, frozen=True, kw_only=True):
    """Talking to the OpenID provider (OP)."""

    timeout_s: Annotated[float, _number("Limit of one request to the OP, reply included.", 0.1, 60)] = 15.0
    connect_timeout_s: Annotated[float, _number("Limit of connecting to the OP.", 0.1, 60)] = 5.0
    clock_skew_s: Annotated[
        float, _number("Tolerated difference between the OP's clock and ours.", 0, 600)
    ] = 60.0
    max_answer_bytes: Annotated[int, _number("A longer answer of the OP is refused.", 4096, 1 << 26)] = MIB
    jwks_refetch_s: Annotated[
        float, _number("Shortest time between two fetches of the OP's keys for an unknown `kid`.", 1, DAY_S)
    ] = 30.0
    proxy: Annotated[
        SecretUrl,
        _say(
            "HTTP proxy for requests to the OP. Proxy variables of the environment are not used.",
            "http://proxy.example.com:3128",
        ),
    ] = SecretUrl()
    revoke: Annotated[
        Literal["profile", "always", "with_op_session", "never"],
        _say(
            "Whether a sign-out gives the tokens back: `always`; `with_op_session` only where the provider's "
            "own session ends too; `never`; `profile` by how far that reaches at this provider, so that "
            "nobody's other sessions end."
        ),
    ] = "profile"
    userinfo: Annotated[
        Literal["when_missing", "always", "never"],
        _say("When the OP's userinfo endpoint is asked; `when_missing`: when the ID token lacks a claim."),
    ] = "when_missing"


class Journal(Struct, frozen=True, kw_only=True):
    """Renewals that could not be stored, kept on disk until they can."""

    dir: Annotated[
        str, _say("Directory of the journal; empty = no journal.", "/var/lib/nightporter/journal")
    ] = ""


class Limits(Struct, frozen=True, kw_only=True):
    """What one request, one browser or all of them may take."""

    max_head_bytes: Annotated[int, _number("Longest request head; a longer one is a 431.", 1024, MIB)] = (
        65_536
    )
    max_fields: Annotated[int, _number("Most header fields of a request; more are a 431.", 10, 10_000)] = 100
    max_connections: Annotated[int, _number("Most connections from browsers at a time.", 1, 1_000_000)] = (
        10_000
    )
    pool_size: Annotated[
        int,
        _number(
            "Most connections to one app at a time: requests under way, open WebSockets and event streams.",
            1,
            100_000,
        ),
    ] = 1024
    pool_queue: Annotated[
        int, _number("Most requests waiting for one of those; more are a 503.", 0, 1_000_000)
    ] = 1024
    max_flows: Annotated[
        int, _number("Most sign-ins one browser has open; the oldest is dropped.", 1, 20)
    ] = 5
    flow_s: Annotated[float, _number("How long a sign-in may take.", 10, 3600)] = 600.0
    page_body_bytes: Annotated[int, _number("Longest body posted to our own pages.", 1024, MIB)] = 65_536
    min_rate_bytes: Annotated[
        int,
        _number(
            "What a client must bring of a body, and take of an answer, per second, measured over "
            "`timeouts.slow_s`; 0 = any progress within `timeouts.body_idle_s`.",
            0,
            MIB,
        ),
    ] = 240


class Timeouts(Struct, frozen=True, kw_only=True):
    """How long the data path waits for whom."""

    head_s: Annotated[float, _number("A browser's request head, from its first byte.", 0.1, 600)] = 10.0
    idle_s: Annotated[float, _number("A kept-alive connection without a request.", 0.1, 3600)] = 75.0
    body_idle_s: Annotated[float, _number("Silence within a body, either way.", 0.1, DAY_S)] = 60.0
    slow_s: Annotated[
        float, _number("Over how long a client's pace is measured (`limits.min_rate_bytes`).", 1, 600)
    ] = 10.0
    connect_s: Annotated[float, _number("Connecting to the app.", 0.1, 600)] = 5.0
    queue_s: Annotated[
        float, _number("Waiting for a connection to the app when all are taken; then a 503.", 0.1, 600)
    ] = 5.0
    first_byte_s: Annotated[
        float, _number("The app's first byte after a request; then a 504.", 0.1, DAY_S)
    ] = 60.0
    upstream_idle_s: Annotated[
        float, _number("An idle connection to the app is kept; less than the app itself keeps it.", 0, 3600)
    ] = 60.0
    tunnel_idle_s: Annotated[float, _number("Silence in a WebSocket or another tunnel.", 1, YEAR_S)] = 3600.0
    drain_s: Annotated[float, _number("Requests and renewals in flight at a stop; then cut.", 0, 3600)] = 30.0


class Several(Struct, frozen=True, kw_only=True):
    """One of several providers, side by side."""

    settings: Settings
    title: Annotated[
        str, _say("Name on the sign-in page's button; empty = the profile's.", "Staff", "Google")
    ] = ""
    hosts: Annotated[
        tuple[str, ...],
        _say(
            "Hosts of `public_url` at which this provider signs in, and no other one that names none of "
            "them; its sessions are good nowhere else. Empty = all.",
            "staff.example.com",
        ),
    ] = ()
    paths: Annotated[
        tuple[str, ...],
        _say("A sign-in that comes from below one of these goes to this provider unasked.", "/admin/"),
    ] = ()


class Tls(Struct, frozen=True, kw_only=True):
    """TLS towards browsers, where it does not end before Nightporter. A renewed certificate is taken over."""

    cert_file: Annotated[
        str,
        _say("PEM file of the certificate and its chain; empty = plain HTTP.", "/etc/nightporter/tls.crt"),
    ] = ""
    key_file: Annotated[str, _say("PEM file of its private key.", "/etc/nightporter/tls.key")] = ""


class UpstreamTls(Struct, frozen=True, kw_only=True):
    """TLS towards the app, for `https` upstreams."""

    ca_file: Annotated[
        str, _say("PEM file of the CAs to trust; empty = those of `ca_file`.", "/etc/ssl/app-ca.pem")
    ] = ""
    server_name: Annotated[
        str, _say("Name to ask for (SNI) and to expect; empty = the upstream's host.", "app.internal")
    ] = ""
    cert_file: Annotated[
        str, _say("PEM file of our client certificate and its chain.", "/etc/nightporter/client.crt")
    ] = ""
    key_file: Annotated[str, _say("PEM file of its private key.", "/etc/nightporter/client.key")] = ""


class ForwardAuth(Struct, frozen=True, kw_only=True):
    """Answering an engine that carries the traffic itself and asks about each request."""

    listen: Annotated[
        str,
        _say(
            "Where the engine asks, never reachable by anybody else; empty = off.",
            "127.0.0.1:8082",
            "unix:/run/np-auth.sock",
        ),
    ] = ""
    engine: Annotated[
        Literal["nginx", "traefik", "caddy", "haproxy", "envoy"],
        _say(
            "Who asks; it fixes the one place where the original URL is read from. `nginx`: "
            "`X-Original-Method` and `X-Original-URI`; `traefik`, `caddy` and `haproxy`: "
            "`X-Forwarded-Method`, `-Uri` and `-Host`; `envoy`: the request itself, behind `/ext-authz`."
        ),
    ] = "nginx"


class Settings(Struct, frozen=True, kw_only=True):
    """The whole configuration, checked. `load()` makes one; nothing changes it afterwards."""

    issuer: Annotated[
        str,
        _say(
            "The OP's issuer, exactly as its discovery document says it.",
            "https://login.example.com/realms/main",
        ),
    ] = ""
    provider: Annotated[
        str,
        _say(
            "Profile of a known provider; enough by itself where the provider has only one issuer.", "google"
        ),
    ] = ""
    client_id: Annotated[str, _say("The client's id at the OP. Required.", "my-app")] = ""
    client_secret: Annotated[Secret, _say("The client's secret at the OP.")] = Secret()
    client_secret_next: Annotated[
        Secret,
        _say(
            "A second secret while the first is being replaced: used as soon as the OP refuses "
            "`client_secret`, and the other way round. Which one is in use is logged and measured."
        ),
    ] = Secret()
    client_key: Annotated[Secret, _say('Private key for `client_auth = "private_key_jwt"`: PEM or JWK.')] = (
        Secret()
    )
    client_auth: Annotated[
        Literal["auto", "basic", "post", "private_key_jwt", "client_secret_jwt", "none"],
        _say(
            "How the client proves itself at the token endpoint; `auto`: by what is configured and what "
            "the OP offers; `none`: a public client (PKCE is always used)."
        ),
    ] = "auto"
    scopes: Annotated[
        tuple[str, ...],
        _say("Scopes to ask for; empty = the profile's.", "openid profile email offline_access"),
    ] = ()
    authorize_params: Annotated[
        dict[str, str] | None,
        _say(
            "Further parameters of the authorization request; not set = the profile's.",
            {"access_type": "offline", "prompt": "consent"},
        ),
    ] = None
    allow: Annotated[
        tuple[str, ...],
        _say(
            "Who may come in; empty = everybody the OP signs in, which an open provider (Google, GitHub, …) "
            "does not accept. `example.com` an e-mail domain, `email:ada@example.com`, `group:staff`, "
            "`sub:248289761001`, `tenant:` and Entra's tenant id or Google's "
            "hosted domain, or the word `everyone`. One match is enough.",
            "example.com group:staff",
        ),
    ] = ()
    groups_claim: Annotated[
        str, _say("Claim that holds the groups; empty = the profile's.", "realm_access.roles")
    ] = ""
    upstream: Annotated[
        str, _say("The app. Required.", "http://127.0.0.1:9000", "https://app.internal", "unix:/run/app.sock")
    ] = ""
    upstreams: Annotated[
        dict[str, str],
        _say(
            "Further apps: `host/path` → address. The longest path that fits wins, one with a host first; "
            "`upstream` serves the rest.",
            {"/api/": "http://127.0.0.1:9001", "admin.example.com/": "https://admin.internal"},
        ),
    ] = field(default_factory=dict[str, str])
    public_urls: Annotated[
        tuple[str, ...],
        _say(
            "Origin under which people reach the app; a list where there are several, the main one first. "
            "Required.",
            "https://app.example.com",
        ),
    ] = field(default=(), name="public_url")
    prefix: Annotated[str, _say("Path below which our own pages live.", "/oauth2")] = "/oauth2"
    listen: Annotated[
        str,
        _say("Where browsers (or the balancer) connect.", "0.0.0.0:8080", "[::]:8080", "unix:/run/np.sock"),
    ] = "127.0.0.1:8080"
    operations_listen: Annotated[
        str, _say("Where health and metrics are served.", "127.0.0.1:8081", "unix:/run/np-operations.sock")
    ] = "127.0.0.1:8081"
    admin_listen: Annotated[
        str,
        _say(
            "Where the doctor's page is served, for this machine only: a loopback address or a unix socket; "
            "empty = off.",
            "127.0.0.1:8083",
            "unix:/run/np-admin.sock",
        ),
    ] = ""
    store: Annotated[
        SecretUrl,
        _say(
            "Where sessions are kept. Redis, for any number of processes: `redis://` and, over TLS, "
            "`rediss://`; `redis+sentinel://host1,host2:26379/name` and `redis+cluster://host1,host2` "
            "(`rediss+…` over TLS). Or `sqlite:/path` (one process, survives restarts), or `memory:` "
            "(trials). User and password are percent-encoded. Required.",
            "rediss://nightporter:secret@redis.example.com:6379/0",
            "redis+sentinel://:secret@sentinel-0,sentinel-1:26379/mymaster",
            "redis+cluster://node-0:6379,node-1:6379",
            "sqlite:/var/lib/nightporter/sessions.db",
        ),
    ] = SecretUrl()
    store_timeout_s: Annotated[
        float, _number("Limit of one operation of a Redis store, connecting included.", 0.05, 30)
    ] = 2.0
    store_prefix: Annotated[
        str,
        _say(
            "Beginning of every key and channel in Redis. Deployments that share sessions share it; others "
            "on the same Redis need another.",
            "np:",
        ),
    ] = "np:"
    store_ca_file: Annotated[
        str, _say("PEM file of CAs that Redis's certificate may come from, beside the system's.")
    ] = ""
    store_cert_file: Annotated[
        str, _say("PEM file of the client certificate for Redis; may hold the key, too.")
    ] = ""
    store_key_file: Annotated[str, _say("PEM file of that certificate's key.")] = ""
    store_username: Annotated[str, _say("User at Redis, where the URL names none.")] = ""
    store_password: Annotated[
        Secret, _say("Password of that user, as it is: only a URL needs percent-encoding.")
    ] = Secret()
    store_sentinel_username: Annotated[str, _say("User at the Sentinels, where they ask for one.")] = ""
    store_sentinel_password: Annotated[Secret, _say("Password of that user.")] = Secret()
    store_wait_replicas: Annotated[
        int,
        _number(
            "How many of Redis's replicas must have a renewal's lease (where the OP punishes a reused "
            "token), its result and a sign-out before they count; 0 = the primary alone. While fewer "
            "answer, renewals at such an OP are put off, and the rest goes on with a warning.",
            0,
            10,
        ),
    ] = 0
    cookie_keys: Annotated[
        Secret,
        _say(
            "Keys that seal cookies, newest first, separated by spaces or newlines; `nightporter keygen` "
            "makes one. On `sqlite:` they are made and kept beside the database when not set."
        ),
    ] = Secret()
    idle_s: Annotated[
        float, _number("A session unused for so long ends; `absolute_s` ends it in any case.", 1, YEAR_S)
    ] = 604_800.0
    absolute_s: Annotated[float, _number("Every session ends so long after its sign-in.", 1, YEAR_S)] = (
        2_592_000.0
    )
    pass_access_token: Annotated[bool, _say("Add `X-Forwarded-Access-Token` to requests.")] = False
    pass_authorization: Annotated[bool, _say("Add `Authorization: Bearer` to requests.")] = False
    headers: Annotated[
        dict[str, str],
        _say(
            "Further identity headers: header name → claim (dots go down into objects).",
            {"X-Department": "department"},
        ),
    ] = field(default_factory=dict[str, str])
    public_paths: Annotated[
        tuple[str, ...],
        _say(
            "Paths that need no sign-in; one that ends in `/` stands for everything below it.",
            "/static/ /healthz",
        ),
    ] = ()
    ping_path: Annotated[
        str,
        _say(
            "Path of the public listener that answers 200 while this process serves, for balancers that can "
            "ask nowhere else; the app's own page there is hidden. Empty = none.",
            "/ping",
        ),
    ] = ""
    ready_path: Annotated[str, _say("The same, with 503 while new requests are not welcome.", "/ready")] = ""
    forwarded: Annotated[
        bool, _say("Also write `Forwarded` (RFC 7239); `X-Forwarded-*` are always written.")
    ] = False
    via: Annotated[str, _say("Pseudonym to write `Via` with; empty = no `Via`.", "nightporter")] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        _say("Networks whose `X-Forwarded-*` are believed.", "10.0.0.0/8 fd00::/8"),
    ] = ()
    post_logout_urls: Annotated[
        tuple[str, ...],
        _say("Absolute URLs to which a sign-out may return.", "https://www.example.com/bye"),
    ] = ()
    ca_file: Annotated[
        str, _say("PEM file of the CAs to trust instead of the system's.", "/etc/ssl/company-ca.pem")
    ] = ""
    insecure_http: Annotated[
        bool,
        _say("Allow a plain-HTTP issuer or public URL that is not loopback. For trials only."),
    ] = False
    access_log: Annotated[bool, _say("One log line for each request.")] = True
    workers: Annotated[
        int,
        _number(
            "Processes that share the listening sockets, one core each; more than one needs a Redis store.",
            1,
            256,
        ),
    ] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _say("Least severity that is logged.")
    ] = "info"
    refresh: Refresh = field(default_factory=Refresh)
    cache: Cache = field(default_factory=Cache)
    op: Op = field(default_factory=Op)
    journal: Journal = field(default_factory=Journal)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    providers: dict[str, Several] = field(default_factory=dict[str, Several])
    tls: Tls = field(default_factory=Tls)
    upstream_tls: UpstreamTls = field(default_factory=UpstreamTls)
    forward_auth: ForwardAuth = field(default_factory=ForwardAuth)

    @property
    def public_url(self) -> str:
        """The main public origin, without a trailing slash."""
        return self.public_urls[0]

    @property
    def listen_address(self) -> Address:
        return listen_address(self.listen)

    @property
    def operations_address(self) -> Address:
        return listen_address(self.operations_listen)

    @property
    def admin_address(self) -> Address:
        return listen_address(self.admin_listen)

    @property
    def upstream_address(self) -> Address:
        return upstream_address(self.upstream)

    @property
    def forward_auth_address(self) -> Address:
        return listen_address(self.forward_auth.listen)

    @property
    def sqlite_path(self) -> str:
        """Path of the SQLite store, "" where the store is another."""
        scheme, _, path = self.store.reveal().partition(":")
        return path if scheme == "sqlite" else ""

    def cookie_key_bytes(self) -> tuple[bytes, ...]:
        """The configured cookie keys, newest first; `keys.cookie_keys` also knows kept ones."""
        return decode_keys(self.cookie_keys.reveal())
