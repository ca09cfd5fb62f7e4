"""`nightporter check --live`: every check of a configuration, and the exit status."""

from __future__ import annotations

import asyncio
import logging
import sys

from proxy import wiring
from proxy.config import Loaded, Several
from proxy.config.checks import cautions
from proxy.core.identity_headers import IdentityHeaders
from proxy.doctor import house
from proxy.doctor.browser import bring
from proxy.doctor.login import Bring, LoginCheck
from proxy.doctor.probes import Probes
from proxy.doctor.report import Report, ok, warn
from proxy.shell.clock import SystemClock
from proxy.shell.op_client import OPClient


def check(
    loaded: Loaded,
    *,
    login: bool = False,
    aggressive: bool = False,
    grace_wait_s: float = 35.0,
    as_json: bool = False,
) -> int:
    """Examine a configuration and print what was found.

    Returns:
        0 = all is well, 1 = there are warnings, 2 = something must change.
    """
    logging.getLogger("nightporter").setLevel(logging.CRITICAL)  # the report says it better
    report = asyncio.run(
        examine(loaded, bring if login else None, aggressive=aggressive, grace_wait_s=grace_wait_s)
    )
    sys.stdout.write(report.as_json() + "\n" if as_json else report.as_text())
    return report.exit_status


async def examine(
    loaded: Loaded, sign_in: Bring | None = None, *, aggressive: bool = False, grace_wait_s: float = 35.0
) -> Report:
    """Examine a configuration.

    Args:
        sign_in: how a person signs in; None = without a sign-in.
        aggressive: also present a used refresh token again.
        grace_wait_s: how long after its use it is presented a second time; 0 = not.
    """
    settings, report = loaded.settings, Report()
    report.add([ok("config", "the configuration can be used")])
    for caution in cautions(settings):
        what, _, why = caution.partition(": ")
        report.add([warn("config", what, why, "Nothing, if it is meant so; `serve` logs it at every start.")])
    report.add([finding async for finding in house.checks(settings)])
    headers = wiring.identity_headers(settings)
    for name, several in wiring.each_provider(settings).items():
        label = name if settings.providers else ""
        callback = f"callback/{name}" if settings.providers else "callback"
        await _provider(report, label, several, callback, headers, sign_in, aggressive, grace_wait_s)
    return report


async def _provider(
    report: Report,
    label: str,
    several: Several,
    callback: str,
    headers: IdentityHeaders,
    sign_in: Bring | None,
    aggressive: bool,
    grace_wait_s: float,
) -> None:
    settings = several.settings
    profile = wiring.profile_of(settings)
    config = wiring.op_config(settings, profile, callback)
    op = OPClient(config, SystemClock())
    probes = Probes(settings, config, op)
    try:
        report.add([ok("op.profile", f"{profile.title} ({profile.name})")], label)
        async for finding in probes.all():
            report.add([finding], label)
        if sign_in is None:
            return
        login = LoginCheck(
            settings,
            config,
            op,
            wiring.claim_rules(settings, profile),
            headers,
            sign_in,
            aggressive=aggressive,
            grace_wait_s=grace_wait_s,
        )
        async for finding in login.all():
            report.add([finding], label)
    finally:
        await probes.close()
        await op.close()
