"""What each part is told, derived from the settings: one function a part, nothing is opened here."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import asdict, fields, replace

from proxy.config import Settings, Several
from proxy.config.grammar import Address, upstream_address, upstream_rule
from proxy.config.redis_address import redis_address
from proxy.core.cookies import names_for
from proxy.core.forward_auth import Engine, source_names
from proxy.core.headers import HeaderPolicy, Trusted
from proxy.core.identity import ClaimRules, claim, groups_elsewhere, refreshed_identity
from proxy.core.identity_headers import IdentityHeaders
from proxy.core.logout import given_back
from proxy.core.providers import Profile, Reach, Reuse, profile_for
from proxy.core.session import Identity
from proxy.core.session_policy import Served, SessionPolicy
from proxy.core.timing import RefreshPolicy
from proxy.errors import ConfigError, Problem
from proxy.shell.aftercare import IdentityRules
from proxy.shell.auth_door import AuthDoor
from proxy.shell.limits import Limits, Timeouts
from proxy.shell.op_client import OPConfig
from proxy.shell.pool import Pool, Upstreams
from proxy.shell.server import make_pool
from proxy.shell.serving import Door, Serving
from proxy.shell.store.redis.options import LinkOptions

Told = TypeVar("Told", Limits, Timeouts)

_REACH = {"always": Reach.SIGN_IN, "with_op_session": Reach.SESSION, "never": Reach.GRANT}
"""What the setting `op.revoke` claims of the provider."""


def profile_of(settings: Settings) -> Profile:
    """The provider's profile: as named, else the one whose issuers look like this one."""
    profile = profile_for(settings.provider, settings.issuer)
    reach = _REACH.get(settings.op.revoke)
    return replace(profile, reach=reach) if reach is not None else profile


def each_provider(settings: Settings) -> dict[str, Several]:
    """Every configured provider by its name, each with settings whole; one of its own if there is one."""
    return settings.providers or {profile_of(settings).name: Several(settings=settings)}


def claim_rules(settings: Settings, profile: Profile) -> ClaimRules:
    """Which claims mean what."""
    return ClaimRules(profile, settings.groups_claim, tuple(settings.headers.values()))


def refresh_policy(settings: Settings, profile: Profile) -> RefreshPolicy:
    """How renewals are done: the profile's ways, where the operator does not know better."""
    given = settings.refresh
    return RefreshPolicy(
        reuse=profile.reuse if given.reuse == "profile" else Reuse(given.reuse),
        margin_s=given.margin_s,
        margin_share=given.margin_share,
        call_s=settings.op.timeout_s,
        intent_wait_s=given.intent_wait_s,
        default_life_s=profile.life_s or given.expires_in_default_s,
        min_life_s=given.min_life_s,
        max_life_s=given.max_life_s,
        send_scope=profile.send_scope,
    )


def redis_options(settings: Settings) -> LinkOptions:
    """How to reach Redis."""
    address = redis_address(settings.store.reveal())
    if settings.store_password:
        username, password = settings.store_username, settings.store_password.reveal()
        address = replace(address, username=username, password=password)
    return LinkOptions(
        address=address,
        ca_file=settings.store_ca_file,
        cert_file=settings.store_cert_file,
        key_file=settings.store_key_file,
        sentinel_username=settings.store_sentinel_username,
        sentinel_password=settings.store_sentinel_password.reveal(),
        timeout_s=settings.store_timeout_s,
        prefix=settings.store_prefix,
        wait_replicas=settings.store_wait_replicas,
    )


def session_policy(settings: Settings, served: Mapping[tuple[str, str], Served]) -> SessionPolicy:
    """Limits of sessions and of their cache.

    Args:
        served: whose sessions, by issuer and client id.
    """
    return SessionPolicy(
        idle_s=settings.idle_s,
        absolute_s=settings.absolute_s,
        ttl_s=settings.cache.ttl_s,
        stale_s=settings.cache.stale_s,
        max_bytes=settings.cache.max_bytes,
        max_identity_bytes=settings.limits.max_head_bytes // 2,
        serve=served,
    )


def config_epoch(op: OPConfig) -> str:
    """Names what a sign-in asks the OP for: two sessions of one epoch were asked for alike.

    It tells an operator which sessions are older than a change of scopes or parameters.
    """
    asked = [op.issuer, op.client_id, sorted(op.scopes), sorted(op.authorize_params.items())]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def epochs(settings: Settings) -> frozenset[str]:
    """The epoch of each provider's settings as they are now."""
    found: set[str] = set()
    for several in each_provider(settings).values():
        profile = profile_of(several.settings)
        found.add(config_epoch(op_config(several.settings, profile)))
    return frozenset(found)


def identity_headers(
    settings: Settings, providers: Mapping[tuple[str, str], str] | None = None
) -> IdentityHeaders:
    """Which headers the app gets.

    Args:
        providers: their names by issuer and client id, where there are several.
    """
    return IdentityHeaders(
        settings.headers,
        access_token=settings.pass_access_token,
        authorization=settings.pass_authorization,
        groups_max_age_s=settings.refresh.groups_max_age_s,
        providers=providers or {},
    )


def header_policy(settings: Settings, *, engine: Engine | None = None) -> HeaderPolicy:
    """What the data path does with header fields.

    Args:
        engine: whose questions are read, at the listener for forward auth.
    """
    return HeaderPolicy(
        [names_for(url) for url in settings.public_urls],
        settings.public_urls,
        identity=identity_headers(settings).names,
        authorization_from_us=settings.pass_authorization,
        forwarded=settings.forwarded,
        via=settings.via,
        sources=source_names(engine) if engine is not None else (),
    )


def op_config(settings: Settings, profile: Profile, callback: str = "callback") -> OPConfig:
    """What the OP client is told.

    Args:
        callback: where the OP sends people back, below our prefix.
    """
    params = settings.authorize_params
    return OPConfig(
        issuer=profile.issuer_of(settings.issuer),
        client_id=settings.client_id,
        client_secret=settings.client_secret.reveal(),
        client_secret_next=settings.client_secret_next.reveal(),
        client_key=settings.client_key.reveal(),
        client_auth=settings.client_auth,
        scopes=settings.scopes or profile.scopes,
        authorize_params=params if params is not None else profile.authorize_params,
        redirect_uri=f"{settings.public_url}{settings.prefix}/{callback}",
        profile=profile,
        ca_file=settings.ca_file,
        proxy=settings.op.proxy.reveal(),
        timeout_s=settings.op.timeout_s,
        connect_timeout_s=settings.op.connect_timeout_s,
        max_answer_bytes=settings.op.max_answer_bytes,
        jwks_refetch_s=settings.op.jwks_refetch_s,
        skew_s=settings.op.clock_skew_s,
        insecure_http=settings.insecure_http,
    )


def identity_rules(settings: Settings, claims: ClaimRules) -> IdentityRules:
    """How identity is learned again after a refresh."""

    def learn(
        told: dict[str, Any] | None, userinfo: dict[str, Any] | None, before: Identity, now: float
    ) -> Identity:
        return refreshed_identity(told, userinfo, before, claims, now)

    def userinfo(told: dict[str, Any] | None, before: Identity) -> bool:
        if not claims.profile.openid:
            return True  # the API is all that there is; asking it also tries the new token
        if settings.op.userinfo != "when_missing":
            return settings.op.userinfo == "always"
        # Only what the ID token used to leave to userinfo is asked for again.
        missing = told is None or claim(told, claims.groups_claim) is None
        return bool(before.groups) and missing

    return IdentityRules(
        learn,
        userinfo,
        lambda told: groups_elsewhere(told, claims),
        lambda tokens: given_back(claims.profile, tokens),
        claims.groups_claim,
    )


def limits_of(settings: Settings) -> Limits:
    """What connections may take."""
    return _with(Limits(), settings.limits)


def timeouts_of(settings: Settings) -> Timeouts:
    """How long the data path waits for whom."""
    return _with(Timeouts(), settings.timeouts)


def _with(defaults: Told, given: Struct) -> Told:
    """The data path's defaults, and what the operator says of them: the same things have the same names."""
    said = asdict(given)
    return replace(defaults, **{each.name: said[each.name] for each in fields(defaults) if each.name in said})


def public_serving(
    settings: Settings, door: Door, policy: HeaderPolicy, upstreams: Upstreams | None, limits: Limits
) -> Serving:
    """How the public listener serves."""
    trusted = Trusted(settings.trusted_proxies)
    return Serving(door, policy, limits, timeouts_of(settings), upstreams, trusted)


def asked_serving(settings: Settings, door: AuthDoor, limits: Limits) -> Serving:
    """How the listener for forward auth serves: it only answers, and believes no peer."""
    policy = header_policy(settings, engine=Engine(settings.forward_auth.engine))
    return Serving(door, policy, limits, timeouts_of(settings), engine=door)


def upstreams_of(settings: Settings, policy: HeaderPolicy) -> Upstreams | None:
    """Connections to the apps; none is opened yet. None where an engine carries the traffic.

    Raises:
        ConfigError: a file of `upstream_tls` cannot be used.
    """
    if not settings.upstream:
        return None
    tls: dict[bool, ssl.SSLContext | None] = {False: None}

    def pool(address: Address) -> Pool:
        if address.tls not in tls:
            tls[True] = _client_tls(settings)
        return make_pool(
            policy,
            host=address.host,
            port=address.port,
            path=address.path,
            tls=tls[address.tls],
            server_name=settings.upstream_tls.server_name,
            limits=limits_of(settings),
            timeouts=timeouts_of(settings),
        )

    pools: dict[Address, Pool] = {}
    rules: list[tuple[bytes, bytes, Pool]] = []
    default = pools[settings.upstream_address] = pool(settings.upstream_address)
    for rule, text in settings.upstreams.items():
        host, prefix = upstream_rule(rule)
        address = upstream_address(text)
        if address not in pools:
            pools[address] = pool(address)
        rules.append((host.encode("ascii"), prefix.encode("ascii"), pools[address]))
    return Upstreams(default, rules)


def _client_tls(settings: Settings) -> ssl.SSLContext:
    given = settings.upstream_tls
    try:
        context = ssl.create_default_context(cafile=given.ca_file or settings.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if given.cert_file:
            context.load_cert_chain(given.cert_file, given.key_file)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            [
                Problem(
                    "upstream_tls",
                    "a file of it cannot be used",
                    "check that they are PEM, and belong together",
                )
            ]
        ) from None
    return context


def load_tls(settings: Settings, context: ssl.SSLContext | None = None) -> ssl.SSLContext | None:
    """The context to speak TLS to browsers with; None = plain.

    Args:
        context: used until now: it takes the files over, and the next handshake shows them.

    Raises:
        ConfigError: a file of `tls` cannot be used; the context is as it was.
    """
    given = settings.tls
    if not given.cert_file:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(given.cert_file, given.key_file)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(given.cert_file, given.key_file)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            [Problem("tls.cert_file", "no certificate that fits its key", "put both there at once")]
        ) from None
    return context
