"""How often the doctor's page asks the world."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.config import Settings
from proxy.core.observed import Observed
from proxy.doctor import page
from proxy.doctor.report import Report, fail, ok


def test_many_who_look_cause_one_examination_until_it_is_old_or_the_configuration_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, calls, using = [1_000_000.0], [0], [Settings()]

    async def examine(loaded: Any) -> Report:
        calls[0] += 1
        await asyncio.sleep(0)
        return Report([ok("op.jwks", "<b>1</b> key"), fail("op.secret", "refused", "why", "fix")])

    monkeypatch.setattr(page, "examine", examine)
    monkeypatch.setattr(page.time, "time", lambda: now[0])
    observed = Observed()

    async def main() -> None:
        shown = page.Page(lambda: using[0], lambda: {"main": observed})
        texts = await asyncio.gather(*(shown.html() for _ in range(5)), shown.as_json())
        assert calls == [1]
        assert b"&lt;b&gt;1&lt;/b&gt; key" in texts[0], "what a provider said is text"
        assert texts[0].index(b"op.secret") < texts[0].index(b"op.jwks")
        now[0] += page.FRESH_S + 1
        await shown.html()
        assert calls == [2]
        using[0] = Settings()
        await shown.html()
        assert calls == [3]

    asyncio.run(main())
