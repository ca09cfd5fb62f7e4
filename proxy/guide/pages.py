"""The documents about providers, written from the profiles and the guides."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.core.providers import PROFILES, GroupsFrom, Offline, Profile, Reach, Reuse, Revocation
from proxy.guide import GUIDES, TOPICS
from proxy.guide.entry import Guide

_MADE = "<!-- Made by `make docs` from proxy/core/providers and proxy/guide: change it there. -->"

_TOPICS = {
    "refresh_token": "no refresh token (`login.refresh_token`, `config.refresh_token`)",
    "refresh_grant": "the refresh grant is refused (`op.refresh_grant`, `op.grants`)",
    "secret": "the secret is wrong or has expired (`op.secret`)",
    "client": "the client is not known (`op.redirect_uri`)",
    "redirect_uri": "the redirect URI is not registered (`op.redirect_uri`)",
    "scopes": "a scope is not known (`config.scopes`, `login.scope`)",
    "issuer": "another issuer (`op.issuer`)",
    "rotation": "a used token ends everything (`login.reuse`)",
    "lifetime": "refresh tokens die too early (`login.lifetime`, `login.refresh`)",
    "groups": "no groups (`login.groups`)",
    "logout": "the provider stays signed in (`op.logout`)",
    "backchannel": "a sign-out there is not told (`op.backchannel`)",
    "dpop": "tokens bound to a key are demanded (`op.dpop`, `login`)",
}


_ABOUT = """
A profile says how a provider is asked for a refresh token and how its answers are read. It is chosen by
`provider`, or by the issuer where that is plainly one of the provider's. Everything that speaks OpenID
Connect works with the generic one. What a provider is *seen* to do is learned, exported as
`nightporter_provider_…` and wins over the profile.

Nothing here was tried against a hosted provider. It is tested against real Keycloak, oidc-provider,
django-oauth-toolkit and Canaille, and for each profile against a scripted provider of our own that
does what the vendor's pages say. `nightporter check --login` shows what *your* tenant does. On each page,
*read* means: in the vendor's pages or source; *memory*: nobody has looked it up here.
"""

_CHECKS = """
```
nightporter check --live                        # without a person
nightporter check --live --login                # with one sign-in of yours: two real refreshes
nightporter check --live --login --aggressive   # and a used token once more, on that sign-in's grant
```
"""


def documents() -> dict[str, str]:
    """File name → content of everything in `docs/providers/`."""
    made = {f"{name}.md": page(profile, GUIDES[name]) for name, profile in PROFILES.items()}
    return made | {"README.md": index()}


def index() -> str:
    """The page that compares them all."""
    return "\n".join(_index()) + "\n"


def page(profile: Profile, guide: Guide) -> str:
    """One provider's page."""
    return "\n".join(_page(profile, guide)) + "\n"


def _index() -> Iterator[str]:
    yield "# Providers"
    yield ""
    yield _MADE
    yield ""
    yield from _ABOUT.strip().splitlines()
    yield ""
    yield "| provider | refresh token by | rotates | a used token | a sign-out |"
    yield "|---|---|---|---|---|"
    for name, profile in PROFILES.items():
        cells = (_how(profile), _rotates(profile), _reuse(profile), _sign_out(profile))
        yield f"| [{name}]({name}.md) | " + " | ".join(cells) + " |"


def _page(profile: Profile, guide: Guide) -> Iterator[str]:
    title = profile.title if profile.name != "github-oauth-app" else "GitHub OAuth Apps"
    yield f"# {'GitHub Apps' if profile.name == 'github' else title}"
    yield ""
    yield _MADE
    yield ""
    yield f"Profile `{profile.name}`. {_recognised(profile)}"
    yield ""
    yield "## At the provider"
    yield ""
    for number, step in enumerate(guide.steps, 1):
        yield f"{number}. {step}"
    yield ""
    yield "## Here"
    yield ""
    yield "```toml"
    yield from guide.config
    yield 'client_id = "…"'
    yield 'client_secret_file = "/run/secrets/nightporter_client_secret"'
    yield 'upstream = "http://127.0.0.1:9000"'
    yield 'public_url = "https://app.example.com"'
    yield 'store = "sqlite:/var/lib/nightporter/sessions.db"'
    yield "```"
    yield ""
    if profile.authorize_params or profile.scopes:
        asked = [f"scopes `{' '.join(profile.scopes)}`"] if profile.scopes else []
        asked += [f"`{name}={value}`" for name, value in profile.authorize_params.items()]
        leave = "Leave `scopes` and `authorize_params` out to keep it so."
        yield f"A sign-in asks with {', '.join(asked)}. {leave}"
        yield ""
    yield "## What to expect"
    yield ""
    yield "| | | known from |"
    yield "|---|---|---|"
    for label, text, fact in _facts(profile, guide):
        yield f"| {label} | {text} | {'read' if fact in profile.read else 'memory'} |"
    yield ""
    for text in guide.expect:
        yield f"- {text}"
    if guide.expect:
        yield ""
    yield "## Check it"
    yield ""
    yield from _CHECKS.strip().splitlines()
    yield ""
    if profile.offline is not Offline.NEVER:
        yield "All is well when `login.refresh_token` says that there is one, and `login.refresh` twice that"
        yield "it works."
    else:
        yield "All is well when `login` says who signed in and `login.allow` that they may come in."
    yield ""
    yield "| it says | change |"
    yield "|---|---|"
    for topic in TOPICS:
        text = guide.remedies.get(topic, "")
        if text:
            yield f"| {_TOPICS[topic]} | {text} |"
    if guide.hits:
        yield ""
        yield "## What people meet"
        yield ""
        for symptom, answer in guide.hits:
            yield f"- **{symptom}** {answer}"
    yield ""
    vendor = f"[The vendor's page]({profile.link})"
    yield f"[All providers](README.md) · [Troubleshooting](../troubleshooting.md) · {vendor}"


def _recognised(profile: Profile) -> str:
    if profile.name == "generic":
        return "Any OpenID provider; used where no other profile is named or recognised."
    if profile.issuer:
        return f'Its issuer is `{profile.issuer}`; `provider = "{profile.name}"` is enough.'
    if profile.issuer_pattern:
        elsewhere = f'Under another address (a domain of your own) set `provider = "{profile.name}"` as well.'
        example = profile.issuer_example.replace(" or ", "` or `")
        return f"Recognised by its issuer, e.g. `{example}`. {elsewhere}"
    return f'Its issuer looks like any other: set `provider = "{profile.name}"`.'


def _facts(profile: Profile, guide: Guide) -> Iterator[tuple[str, str, str]]:
    yield "refresh token by", _how(profile), "how"
    yield "a refresh brings another refresh token", _rotates(profile), "rotation"
    yield "a refresh token that was used", _reuse(profile), "grace" if profile.grace_s else "reuse"
    if profile.one_per_client:
        yield "several browsers", "a new sign-in ends the refresh token of the one before", "reuse"
    if profile.old_access_token_dies:
        yield "the access token before", "dies with the refresh", "rotation"
    if profile.new_id_token is not None:
        yield "a refresh brings an ID token", "yes" if profile.new_id_token else "no", "claims"
    yield "life", guide.life or "not told", "life"
    groups = {
        GroupsFrom.ID_TOKEN: f"the claim `{profile.groups_claim}` of the ID token",
        GroupsFrom.USERINFO: f"the claim `{profile.groups_claim}` of userinfo",
        GroupsFrom.API: "its API",
        GroupsFrom.NOWHERE: "nowhere: rules on groups are refused",
    }[profile.groups_from]
    if profile.overage_api:
        groups += ", Microsoft Graph where they are too many"
    yield "groups from", groups, "claims"
    verified = f"by `{profile.email_verified_claim}`" if profile.openid else "by its API"
    yield "an address is verified", verified, "claims"
    if profile.tenant_claim:
        yield "rules `tenant:…`", f"match the claim `{profile.tenant_claim}`", "claims"
    yield "words that end the session", _words(profile.dead_codes, profile.dead_status), "words"
    yield (
        "words that are the operator's business (sessions are kept)",
        _words(profile.client_codes, ()),
        "words",
    )
    yield "words that ask for the person (a new sign-in)", _words(profile.interaction_codes, ()), "words"
    sends = ["scope"] * profile.send_scope + ["redirect_uri"] * profile.send_redirect_uri
    yield "a refresh also sends", ", ".join(f"`{name}`" for name in sends) or "nothing else", "words"
    yield "a sign-out", _sign_out(profile), "logout"
    yield "tokens are given back", _gives_back(profile), "revocation"


def _words(codes: frozenset[str], statuses: tuple[int, ...]) -> str:
    words = ", ".join(f"`{code}`" for code in sorted(codes))
    if statuses and statuses != (400,):
        words += f"; with HTTP {', '.join(str(status) for status in statuses)}"
    return words


def _how(profile: Profile) -> str:
    match profile.offline:
        case Offline.SCOPE:
            return "the scope `offline_access`"
        case Offline.PARAMETER:
            return " and ".join(f"`{name}={value}`" for name, value in profile.authorize_params.items())
        case Offline.ALWAYS:
            return "the code grant, always"
        case Offline.CLIENT:
            return "a setting of the client"
        case Offline.NEVER:
            return "nothing: there is none"


def _rotates(profile: Profile) -> str:
    text = {True: "yes", False: "no", None: "by a setting"}[profile.rotates]
    return text + ", or only at times" if profile.rotates_at_times else text


def _reuse(profile: Profile) -> str:
    grace = f" (grace {profile.grace_s:.0f} s)" if profile.grace_s else ""
    return {
        Reuse.UNKNOWN: "not known",
        Reuse.NONE: "works again",
        Reuse.GRACE: "works on",
        Reuse.IDEMPOTENT: "gives the same successor" + grace,
        Reuse.REFUSED: "is refused",
        Reuse.PUNISHED: "may end the whole sign-in" + grace,
    }[profile.reuse]


def _sign_out(profile: Profile) -> str:
    if profile.own_logout is not None:
        return f"ends the provider's session too (its endpoint, else `{profile.own_logout.path}`)"
    if profile.end_session:
        return "ends the provider's session too, where it announces an endpoint"
    return "ends the session here"


def _gives_back(profile: Profile) -> str:
    way = {
        Revocation.RFC7009: "at the revocation endpoint",
        Revocation.LOGOUT: "by posting the refresh token to the logout endpoint",
        Revocation.API_DELETE: "by deleting the access token through the API",
        Revocation.NONE: "there is no way",
    }[profile.revocation]
    if profile.revocation is Revocation.NONE:
        return way
    when = {
        Reach.TOKEN: "at each sign-out",
        Reach.SIGN_IN: "at each sign-out",
        Reach.SESSION: "when a sign-out ends the provider's session too",
        Reach.GRANT: "never: it would end the person's other sessions as well",
    }[profile.reach]
    return f"{way}, {when}"
