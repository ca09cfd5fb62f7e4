"""What the doctor found, for people and for programs. Never a token."""

from __future__ import annotations

import enum
import hashlib
import json
import secrets
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field

WIDTH = 100


class Level(enum.StrEnum):
    """How bad a finding is. `WARN` may be meant so; `FAIL` will sign people out or let nobody in."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and what came of it.

    Attributes:
        level: see `Level`.
        check: its name, stable, e.g. ``op.issuer``.
        what: what was found, one sentence.
        why: why that matters; "" where it is fine.
        remedy: what to change, in the provider's own words; "" where it is fine.
        provider: whose, "" = nobody's.
    """

    level: Level
    check: str
    what: str
    why: str = ""
    remedy: str = ""
    provider: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(Level.OK, check, what)


def warn(check: str, what: str, why: str, remedy: str) -> Finding:
    return Finding(Level.WARN, check, what, why, remedy)


def fail(check: str, what: str, why: str, remedy: str) -> Finding:
    return Finding(Level.FAIL, check, what, why, remedy)


@dataclass(slots=True)
class Report:
    """All findings of one run, in order."""

    findings: list[Finding] = field(default_factory=list[Finding])

    def add(self, findings: Iterable[Finding], provider: str = "") -> None:
        """Take findings in, as those of a provider."""
        for each in findings:
            self.findings.append(
                Finding(each.level, each.check, each.what, each.why, each.remedy, provider or each.provider)
            )

    @property
    def exit_status(self) -> int:
        """0 = all is well, 1 = warnings, 2 = failures."""
        levels = {each.level for each in self.findings}
        return 2 if Level.FAIL in levels else 1 if Level.WARN in levels else 0

    def as_json(self) -> str:
        """One JSON object: the findings, counts and the exit status."""
        body = {
            "findings": [
                {
                    "level": each.level.value,
                    "check": each.check,
                    "provider": each.provider or None,
                    "what": each.what,
                    "why": each.why or None,
                    "remedy": each.remedy or None,
                }
                for each in self.findings
            ],
            "counts": {level.value: sum(each.level is level for each in self.findings) for level in Level},
            "exit_status": self.exit_status,
        }
        return json.dumps(body, indent=2, ensure_ascii=False)

    def as_text(self) -> str:
        """A table: level, check, what; below it why, and what to change."""
        wide = max((len(_name(each)) for each in self.findings), default=0)
        lines: list[str] = []
        for each in self.findings:
            head = f"{each.level.value:<4}  {_name(each):<{wide}}  "
            lines += textwrap.wrap(
                each.what, max(WIDTH, wide + 46), initial_indent=head, subsequent_indent=" " * len(head)
            ) or [head]
            for mark, text in (("", each.why), ("→ ", each.remedy)):
                if text:
                    indent = " " * 6
                    lines += textwrap.wrap(
                        mark + text, WIDTH, initial_indent=indent, subsequent_indent=indent + " " * len(mark)
                    )
        count = {level: sum(each.level is level for each in self.findings) for level in Level}
        lines.append(
            f"{len(self.findings)} checks: {count[Level.OK]} fine, {count[Level.WARN]} to look at, "
            f"{count[Level.FAIL]} to change."
        )
        return "\n".join(lines) + "\n"


def _name(finding: Finding) -> str:
    return f"{finding.provider}: {finding.check}" if finding.provider else finding.check


class Fingerprints:
    """Short names for tokens, salted anew in each run: nothing can be looked up by them."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)

    def of(self, token: str) -> str:
        if not token:
            return "none"
        return hashlib.sha256(self._salt + token.encode()).hexdigest()[:8]
