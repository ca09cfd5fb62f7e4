"""Why a sign-in of the doctor's failed, in words for the operator (the pages' words are for everybody)."""

from __future__ import annotations

from proxy.core.providers import Profile
from proxy.core.session import OutcomeKind
from proxy.core.token_reply import Refused
from proxy.doctor.report import Finding, fail
from proxy.errors import IdTokenRejected, LoginError, OPRejected, OPUnavailable, ProxyError
from proxy.guide import TOPICS, remedy, topic_of

CHECK = "login"

_PASTE = "Open the address that was printed last, and paste the whole address that you come back to, once."
_KEYS = "Compare the token's kid and alg with the keys at the provider's jwks_uri, and ask the provider."
_CLOCKS = "Synchronise this machine's clock (NTP); if it is right, tell the provider."
_REPORT = "Report it to the provider."

# Code → why, and what to change: a topic of the guides, or a sentence.
_WHY = {
    "state_mismatch": ("That address belongs to another sign-in.", _PASTE),
    "bad_parameters": ("That address is malformed.", _PASTE),
    "code_missing": ("That address holds neither a code nor an error.", _PASTE),
    "flow_too_old": ("The sign-in took longer than ten minutes.", "Run the check again."),
    "issuer_mismatch": ("The answer names another issuer than the discovery document.", "issuer"),
    "access_denied": (
        "The provider declined: somebody chose No there, or this person may not use the client.",
        "Admit the person to the client at the provider, or sign in as somebody else.",
    ),
    "login_required": (
        "The provider was told not to ask the person for anything.",
        "Remove prompt=none from authorize_params.",
    ),
    "iss": ("The ID token names another issuer than the discovery document.", "issuer"),
    "aud": ("The ID token is for another client.", "client"),
    "azp": ("The ID token is for another client.", "client"),
    "exp": ("The clocks here and there differ by more than op.clock_skew_s.", _CLOCKS),
    "iat": ("The clocks here and there differ by more than op.clock_skew_s.", _CLOCKS),
    "nbf": ("The clocks here and there differ by more than op.clock_skew_s.", _CLOCKS),
    "clock_skew": ("The clocks here and there differ by more than op.clock_skew_s.", _CLOCKS),
    "kid_unknown": ("The ID token is signed with a key that the provider does not publish.", _KEYS),
    "signature": ("None of the provider's keys verifies the ID token.", _KEYS),
    "alg": ("The ID token is signed in a way that is not accepted or not announced.", _KEYS),
    "id_token_missing": (
        "The provider issued tokens, but no ID token.",
        "Keep openid in scopes; the client must be one for OpenID Connect.",
    ),
    "nonce": ("The ID token was not made for this sign-in.", _REPORT),
    "at_hash": ("The ID token was made for another access token.", _REPORT),
    "userinfo_sub": ("Userinfo speaks of somebody else than the ID token.", _REPORT),
    "userinfo_401": (
        "Userinfo refuses the access token, and claims that only it tells are missing.",
        "groups",
    ),
    "userinfo_403": (
        "Userinfo refuses the access token, and claims that only it tells are missing.",
        "groups",
    ),
    "token_type": ("The access token is of a kind that no app could use (DPoP, mTLS).", "dpop"),
    "invalid_grant": (
        "A code works once, mostly for a minute, and with the redirect URI that it was issued for.",
        _PASTE,
    ),
}
_REFUSED_THERE = {
    "error=invalid_scope": "scopes",
    "error=unauthorized_client": "client",
    "error=unsupported_response_type": "client",
    "error=invalid_request": "redirect_uri",
}


def failed_sign_in(error: ProxyError, profile: Profile) -> Finding:
    """The finding for a sign-in that came to nothing."""
    name = profile.name
    if isinstance(error, OPUnavailable):
        what, fix = f"the provider cannot be asked: {error.detail}", "Check DNS, firewalls and op.proxy."
        return fail(CHECK, what, "Nobody can sign in.", fix)
    if not isinstance(error, (LoginError, IdTokenRejected, OPRejected)):
        return fail(CHECK, error.detail or error.message, "Nobody can sign in.", _REPORT)
    told = error.detail if error.detail not in ("", error.code) else ""
    what = f"the sign-in failed: {error.code}" + (f" ({told})" if told else "")
    if isinstance(error, OPRejected) and error.http_status and error.code not in _WHY:
        topic = topic_of(error.code, error.http_status, error.detail)
        return fail(
            CHECK, what, "The provider refused to redeem the code. Nobody can sign in.", remedy(name, topic)
        )
    why, fix = _WHY.get(error.code, ("Nobody can sign in.", _REFUSED_THERE.get(told, "client")))
    return fail(CHECK, what, why, remedy(name, fix) if fix in TOPICS else fix)


def refused_code(refused: Refused, words: str) -> OPRejected:
    """The refusal of a code as an error, with the provider's own words."""
    ours = refused.kind in (OutcomeKind.AMBIGUOUS, OutcomeKind.TRANSIENT)
    detail = f"HTTP {refused.http_status}" + (f", “{words}”" if words else "")
    return OPRejected(refused.code, http_status=0 if ours else refused.http_status, detail=detail)
