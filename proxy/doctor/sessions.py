"""The sessions that there are: how many of them have no refresh token, and since when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from proxy import wiring
from proxy.config import Settings
from proxy.core.answers import Tally
from proxy.core.providers import Offline
from proxy.doctor.report import Finding, ok, warn
from proxy.errors import StoreUnavailable
from proxy.guide import remedy
from proxy.operator import StoreBeside

CHECK = "store.sessions"


async def checks(settings: Settings) -> AsyncIterator[Finding]:
    """Count them, where they are kept outside of the service's own process."""
    if not _begun(settings):
        return
    try:
        async with StoreBeside(settings) as store:
            tallies = await store.tally()
    except StoreUnavailable:
        return  # said by the store's own checks, or in memory
    yield judged(tallies, settings)


def _begun(settings: Settings) -> bool:
    """Whether anybody can have signed in yet."""
    return not settings.sqlite_path or Path(settings.sqlite_path).exists()


def judged(tallies: Sequence[Tally], settings: Settings) -> Finding:
    """What the counts say: sessions from before a change keep having no refresh token."""
    known = wiring.each_provider(settings)
    profiles = {name: wiring.profile_of(several.settings) for name, several in known.items()}
    never = {name for name, profile in profiles.items() if profile.offline is Offline.NEVER}
    total = sum(tally.count for tally in tallies)
    without = [tally for tally in tallies if not tally.refreshable and tally.provider not in never]
    count = sum(tally.count for tally in without)
    if not count:
        none = "no live session"
        return ok(CHECK, f"{total} live sessions, none of which lacks a refresh token" if total else none)
    epochs = wiring.epochs(settings)
    now = [tally for tally in without if tally.config in epochs]
    what = f"{count} of {total} live sessions have no refresh token"
    why = "They end with their access token, and no provider gives them one later."
    if not now:
        fix = (
            "Nothing: they sign in once more and then have one. All at once: `nightporter sessions end-all`."
        )
        return warn(CHECK, f"{what}; all of them began before the configuration was changed", why, fix)
    recent = sum(tally.count for tally in now)
    name = profiles[now[0].provider].name if now[0].provider in profiles else "generic"
    return warn(
        CHECK, f"{what}; {recent} began with the configuration as it is", why, remedy(name, "refresh_token")
    )
