"""How long sessions last, and where they are kept."""

from __future__ import annotations

from proxy.config.registry import declared
from proxy.importing import redis
from proxy.importing.draft import Draft
from proxy.importing.given import Given
from proxy.importing.provider import SECRETS

DEFAULT_EXPIRE_S = 604_800.0
"""oauth2-proxy's `cookie-expire`: a week."""

SQLITE = "sqlite:/var/lib/nightporter/sessions.db"


def translate(given: Given, draft: Draft) -> None:
    """Write store, keys and limits."""
    _limits(given, draft)
    flow_s = given.seconds("cookie-csrf-expire")
    if flow_s:
        draft.put("limits.flow_s", min(max(flow_s, 10.0), 3600.0), given.place("cookie-csrf-expire"))
    about = given.place("cookie-secret", "cookie-secret-file") or "cookie_secret"
    if given.text("session-store-type") == "redis":
        redis.translate(given, draft)
        advice = (
            f"Make one with `nightporter keygen > {SECRETS}/nightporter_cookie_keys`; all replicas share it."
        )
        origin = f"instead of {about}, which cannot be carried over"
        draft.put("cookie_keys_file", f"{SECRETS}/nightporter_cookie_keys", origin, advice)
    else:
        draft.put(
            "store",
            SQLITE,
            given.place("session-store-type") or "oauth2-proxy's default, a cookie",
            "The directory must be there, on a disk that stays. For several replicas, use Redis.",
        )
        if given.replicas > 1:
            draft.decide(
                "replicas", f"{given.replicas} of them share no SQLite file: keep sessions in Redis (store)"
            )
        draft.changed(
            given.place("session-store-type") or "session_store_type",
            "tokens leave the cookie for a store: SQLite for one process, Redis for several",
        )
    draft.changed(
        about,
        "cookies of oauth2-proxy open nothing here: everybody signs in once more (most without noticing)",
    )


def _limits(given: Given, draft: Draft) -> None:
    expire_s = given.seconds("cookie-expire")
    origin = given.place("cookie-expire") or "oauth2-proxy's default of cookie_expire"
    if expire_s == 0:
        draft.changed(given.place("cookie-expire"), "a session has limits here: idle_s and absolute_s")
        return
    life_s = expire_s or DEFAULT_EXPIRE_S
    if given.seconds("cookie-refresh"):
        # Each of its refreshes begins the time anew: a limit of idleness, more or less.
        draft.put("idle_s", life_s, f"{origin}, which cookie_refresh begins anew")
        longest = max(life_s, float(declared()["absolute_s"].default))
        draft.put("absolute_s", longest, "new: a limit that nothing extends")
    else:
        draft.put("idle_s", min(life_s, float(declared()["idle_s"].default)), origin)
        draft.put("absolute_s", life_s, origin)
