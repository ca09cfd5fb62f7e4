"""The doctor's page: the same findings, made by the serving process, and what it has seen since its start.

It is on a listener of its own that only this machine reaches, because each look asks the provider, the
store and the app, and says where they are. Nothing can be changed there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.config import Loaded, Settings
from proxy.core.observed import Observed
from proxy.doctor.report import Level, Report
from proxy.doctor.run import examine

if TYPE_CHECKING:
    from jinja2 import Template

FRESH_S = 30.0
"""A report is shown for this long before the world is asked again."""


@dataclass(frozen=True, slots=True)
class _Made:
    report: Report
    at: float


class Page:
    """Examines at most once in `FRESH_S`, whoever asks and however many.

    Args:
        settings: as they are now.
        seen: what each provider was seen to do.
    """

    def __init__(self, settings: Callable[[], Settings], seen: Callable[[], Mapping[str, Observed]]) -> None:
        self._settings = settings
        self._seen = seen
        self._made: tuple[Settings, _Made] | None = None
        self._one = asyncio.Lock()

    async def html(self) -> bytes:
        """The page."""
        made = await self._look()
        report = made.report
        text = _template().render(
            findings=report.findings,
            counts={level.value: sum(each.level is level for each in report.findings) for level in Level},
            at=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(made.at)),
            seen=self._figures(),
        )
        return text.encode()

    async def as_json(self) -> bytes:
        """The same for a program."""
        made = await self._look()
        body: dict[str, Any] = json.loads(made.report.as_json())
        body |= {"examined_at": round(made.at), "seen": self._figures()}
        return json.dumps(body, indent=2, ensure_ascii=False).encode() + b"\n"

    async def _look(self) -> _Made:
        async with self._one:
            settings = self._settings()
            if (
                self._made is None
                or self._made[0] is not settings
                or time.time() - self._made[1].at > FRESH_S
            ):
                report = await examine(Loaded(settings, {}, (), ()))
                self._made = settings, _Made(report, time.time())
            return self._made[1]

    def _figures(self) -> dict[str, dict[str, float]]:
        """By provider, what /metrics exports of it as nightporter_provider_…"""
        return {
            provider: {name: value for name, _, value in observed.figures()}
            for provider, observed in self._seen().items()
        }


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
