"""A sign-in: what is sent to the OP, and what must hold when the browser comes back.

The checks run in the order in which they protect: nothing is redeemed before the answer is
known to belong to this browser and this OP (RFC 9700 §4.4, §4.7; RFC 9207 §2.4).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from proxy.core.metadata import Metadata
from proxy.errors import CookieError, LoginError

FLOW_S = 600.0
MAX_PARAMETER_CHARS = 4096
_KNOWN = frozenset({"state", "code", "iss", "error", "error_description", "error_uri", "session_state"})
_OURS = frozenset(
    {"response_type", "response_mode", "client_id", "redirect_uri", "state", "nonce", "code_challenge",
     "code_challenge_method", "request", "request_uri"}
)  # fmt: skip


class Flow(msgspec.Struct, frozen=True):
    """One pending sign-in, sealed into a cookie of its own.

    Attributes:
        id: random; also the `state`.
        nonce: ties the ID token to this sign-in.
        code_verifier: ties the code to this sign-in (RFC 7636).
        return_to: local path to go back to.
        created_at: Unix seconds.
        provider: whose sign-in it is.
    """

    id: str
    nonce: str
    code_verifier: str
    return_to: str
    created_at: float
    provider: str

    def __repr__(self) -> str:
        return f"Flow({self.id[:6]}…)"

    def encode(self) -> bytes:
        """As it goes into the cookie, before sealing."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, plain: bytes) -> Flow:
        """The inverse of `encode`; raises CookieError for anything else."""
        try:
            return msgspec.msgpack.decode(plain, type=cls)
        except msgspec.DecodeError as error:
            raise CookieError("The sign-in cookie is not readable.", detail="flow schema") from error


def authorization_params(
    flow: Flow,
    *,
    client_id: str,
    redirect_uri: str,
    scopes: Sequence[str],
    code_challenge: str,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """Parameters of the authorization request; `extra` adds to them and overrides none of ours."""
    params = {name: value for name, value in extra.items() if name not in _OURS}
    if scopes:
        params["scope"] = " ".join(scopes)
    return params | {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": flow.id,
        "nonce": flow.nonce,
        "code_challenge": code_challenge,
        "code_challenge_method": "S256",
    }


def prompt_with(usual: Mapping[str, str], ask: str) -> str:
    """A `prompt` that holds the word `ask`, beside what the OP is asked anyway.

    Args:
        usual: the configured authorization parameters.
    """
    words = [word for word in usual.get("prompt", "").split() if word != "none"]
    return " ".join([*words, ask] if ask not in words else words)


def after_refusal(usual: Mapping[str, str], code: str, claims: str, *, ask: str) -> dict[str, str]:
    """What a sign-in must ask for after the OP refused a refresh because it wants to see the person.

    Their session at the OP may be alive and well: without a `prompt` it would say yes again without a
    word, and refuse the next refresh again.

    Args:
        usual: the configured authorization parameters.
        code: the OP's error code.
        claims: what it demanded, a JSON object (OIDC Core §5.5); "" = nothing.
        ask: the word that makes this OP ask who is there.
    """
    word = {"consent_required": "consent", "account_selection_required": "select_account"}.get(code, ask)
    extra = {"prompt": prompt_with(usual, word)}
    if claims:
        demand = _request(usual.get("claims", ""))
        for place, wanted in _request(claims).items():
            before = demand.get(place)
            if isinstance(before, dict) and isinstance(wanted, dict):
                # Of the same claim, what is demanded now.
                wanted = cast("dict[str, Any]", before) | cast("dict[str, Any]", wanted)
            demand[place] = wanted
        extra["claims"] = json.dumps(demand, separators=(",", ":"))
    return extra


def _request(claims: str) -> dict[str, Any]:
    """A claims request as an object; empty if it is none."""
    try:
        found: object = json.loads(claims or "{}")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def single(params: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The callback's parameters as a mapping.

    Raises:
        LoginError: one of the protocol's parameters came twice, or is oversized.
    """
    found: dict[str, str] = {}
    for name, value in params:
        if name not in _KNOWN:
            continue
        if name in found or len(value) > MAX_PARAMETER_CHARS:
            raise LoginError("bad_parameters", "This sign-in answer is malformed. Start again.")
        found[name] = value
    return found


def check_callback(
    params: Mapping[str, str], flow: Flow, metadata: Metadata, now: float, *, flow_s: float = FLOW_S
) -> str:
    """Check the OP's answer against the flow that its `state` led to; the code to redeem.

    Args:
        params: from `single`.
        now: Unix seconds.
        flow_s: how long a sign-in may take.

    Raises:
        LoginError: the sign-in cannot go on; nothing that the OP wrote is in its message.
    """
    state = params.get("state", "").encode(errors="surrogatepass")
    if not hmac.compare_digest(state, flow.id.encode()):
        raise LoginError("state_mismatch", "This sign-in answer belongs to another browser. Start again.")
    if not -60 <= now - flow.created_at <= flow_s:
        raise LoginError("flow_too_old", "This sign-in took too long. Start again.")
    iss = params.get("iss")
    if (iss is not None and iss != metadata.issuer) or (iss is None and metadata.names_itself):
        raise LoginError("issuer_mismatch", "This sign-in answer came from another provider. Start again.")
    if "error" in params:
        raise _refused(params["error"])
    code = params.get("code", "")
    if not code:
        raise LoginError(
            "code_missing", "The identity provider's answer holds nothing to go on with. Start again."
        )
    return code


def _refused(error: str) -> LoginError:
    word = (
        error if len(error) <= 64 and error.isascii() and error.replace("_", "a").isalnum() else "unreadable"
    )
    match word:
        case "access_denied":
            return LoginError(
                "access_denied", "The sign-in was declined at the identity provider.", status=403
            )
        case "temporarily_unavailable" | "server_error":
            return LoginError(
                word, "The identity provider has a problem at the moment. Try again shortly.", status=503
            )
        case "login_required" | "interaction_required" | "consent_required" | "account_selection_required":
            return LoginError(word, "The identity provider needs you to sign in there again. Start again.")
        case _:
            return LoginError(
                "op_error",
                "The identity provider refused the sign-in. Try again; if it stays, tell the operator the "
                "request id.",
                status=502,
                detail=f"error={word}",
            )
