"""Who may come in.

oauth2-proxy asks twice: is the address right, **and**, where any membership is named, is one of them
there? Ours is one list of which one match is enough. Where that would let in more people than
before, somebody must decide; nothing widens silently.
"""

from __future__ import annotations

from pathlib import Path

from proxy.config.grammar import DOMAIN
from proxy.core.providers import Profile
from proxy.importing.draft import Draft
from proxy.importing.given import Given

NOBODY = "group:decide-who-may-come-in"
"""Stands where no rule can be written: it lets nobody in."""

_NOT_ASKED = (
    "google-group",
    "gitlab-project",
    "github-repo",
    "github-user",
    "bitbucket-team",
    "bitbucket-repository",
    "oidc-audience-claim",
)


def translate(given: Given, draft: Draft, profile: Profile) -> None:
    """Write `allow` and `groups_claim`."""
    claim, memberships = _memberships(given, draft)
    addresses, everybody = _addresses(given, draft, profile)
    lost = [name for name in _NOT_ASKED[:-1] if given.values.get(name) and given.values[name].value]
    origin = _origin(given, bool(memberships))
    if claim:
        draft.put("groups_claim", claim, given.place("allowed-role", "oidc-groups-claim"))
    if memberships:
        draft.put("allow", tuple(memberships), origin)
        if addresses and not everybody:
            draft.decide(
                given.place("email-domain", "authenticated-emails-file"),
                "oauth2-proxy asks for an address and a membership; here one match of allow is enough. "
                "The memberships were kept. Is everybody in these groups welcome?",
            )
        return
    if lost:
        about = given.place(*lost)
        if addresses and not everybody:
            draft.put("allow", tuple(addresses), origin)
            draft.decide(about, "this restriction is gone: everybody with a right address comes in")
        else:
            draft.put("allow", (NOBODY,), about)
            draft.decide(about, "this restriction has no equivalent, so nobody comes in: write allow by hand")
    elif everybody:
        draft.put("allow", ("everyone",), origin)
    elif addresses:
        draft.put("allow", tuple(addresses), origin)
    elif given.place("email-domain", "authenticated-emails-file"):
        draft.put("allow", (NOBODY,), origin)
        draft.decide(origin, "none of these rules could be written, so nobody comes in: write allow by hand")


def _origin(given: Given, memberships: bool) -> str:
    names = ("allowed-group", "allowed-role", "keycloak-group", "github-org", "github-team", "gitlab-group")
    if memberships:
        return given.place(*names, "entra-id-allowed-tenant")
    return given.place("email-domain", "authenticated-emails-file")


def _addresses(given: Given, draft: Draft, profile: Profile) -> tuple[list[str], bool]:
    """Rules on addresses, and whether every address is right."""
    rules: list[str] = []
    about = given.place("email-domain")
    domains = given.items("email-domain")
    for domain in domains:
        if domain.startswith((".", "*.")):
            draft.decide(about, f"{domain}: a rule for subdomains; name each domain in allow")
        elif DOMAIN.fullmatch(domain.lower()):
            rules.append(domain.lower())
        elif domain != "*":
            draft.decide(about, "something that is no domain; write allow by hand")
    path = given.text("authenticated-emails-file")
    if path:
        rules += _listed(path, draft, given.place("authenticated-emails-file"))
    if rules and "*" not in domains and not profile.email_trusted:
        about = given.place("email-domain", "authenticated-emails-file")
        if profile.email_verified_claim != "email_verified":
            draft.decide(
                about,
                f"{profile.title} calls no address verified, so these rules match nobody: add the optional "
                f"claim {profile.email_verified_claim} to the ID token, or write tenant: or group: rules",
            )
        else:
            draft.changed(
                about, "a rule on an address matches only if the provider calls the address verified"
            )
    return rules, "*" in domains


def _listed(path: str, draft: Draft, about: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        draft.decide(about, f"{path} cannot be read here: write its addresses into allow, email:ADDRESS each")
        return []
    addresses = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    draft.changed(
        about, f"the {len(addresses)} address(es) of {path} are in allow; the file is not read again"
    )
    return [f"email:{address}" for address in addresses]


def _memberships(given: Given, draft: Draft) -> tuple[str, list[str]]:
    """The claim that holds the groups, where it is not the usual one, and rules on them."""
    rules = [f"tenant:{tenant}" for tenant in given.items("entra-id-allowed-tenant")]
    groups = [*given.items("allowed-group"), *given.items("keycloak-group"), *given.items("gitlab-group")]
    rules += [f"group:{group}" for group in groups]
    rules += _github(given, draft)
    claim = given.text("oidc-groups-claim")
    claim = "" if claim == "groups" else claim
    roles = given.items("allowed-role")
    if not roles:
        return claim, rules
    about = given.place("allowed-role")
    role_claim, names = _roles(roles)
    if groups or not role_claim:
        draft.decide(about, "roles and groups stand in different claims, of which groups_claim names one")
        return claim, rules or [NOBODY]
    draft.changed(
        about,
        "roles are read from the ID token (oauth2-proxy: from the access token). In Keycloak's client scope "
        f"roles, switch on 'Add to ID token' of the mapper that writes {role_claim}",
    )
    return role_claim, [*rules, *(f"group:{name}" for name in names)]


def _roles(roles: list[str]) -> tuple[str, list[str]]:
    """The one claim that holds all these roles ("" if there is none), and their names in it."""
    claims: set[str] = set()
    names: list[str] = []
    for role in roles:
        client, colon, name = role.partition(":")
        claims.add(f"resource_access.{client}.roles" if colon else "realm_access.roles")
        if colon and "." in client:
            return "", []
        names.append(name if colon else role)
    return (claims.pop(), names) if len(claims) == 1 else ("", [])


def _github(given: Given, draft: Draft) -> list[str]:
    org = given.text("github-org")
    teams = [team.strip() for team in given.text("github-team").split(",") if team.strip()]
    rules: list[str] = []
    for team in teams:
        owner, colon, slug = team.partition(":")
        if colon and (not org or owner == org):
            rules.append(f"group:{owner}/{slug}")
        elif org and not colon:
            rules.append(f"group:{org}/{team}")
        else:
            draft.decide(given.place("github-team"), f"{team}: a team without its organisation")
    if org and not teams:
        rules.append(f"group:{org}")
    return rules or ([NOBODY] if teams else [])
