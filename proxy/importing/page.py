"""The tables of `docs/from-oauth2-proxy.md`. `python -m proxy.importing.page FILE` writes them into it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from proxy.importing.flags import FLAGS, Fate, Flag
from proxy.importing.provider import PROVIDERS

TITLES = {
    Fate.CARRIED: "Carried over",
    Fate.NEEDLESS: "Not needed",
    Fate.LOST: "No equivalent",
}


def providers() -> str:
    """oauth2-proxy's providers and ours."""
    lines = ["| `provider` there | `provider` here | |", "|---|---|---|"]
    for name, counterpart in PROVIDERS.items():
        profile = counterpart.profile
        ours = "none" if profile is None else f"`{profile}`" if profile else "found by `issuer`"
        lines.append(f"| `{name}` | {ours} | {counterpart.remark} |")
    return "\n".join(lines)


def flags() -> str:
    """Every flag and what becomes of it."""
    return "\n".join(_flags())


def _flags() -> Iterator[str]:
    for fate, title in TITLES.items():
        yield f"### {title}"
        yield ""
        yield "| there | here |" if fate is not Fate.LOST else "| there | why, and what to do |"
        yield "|---|---|"
        for words, names in _grouped(fate).items():
            yield f"| {', '.join(f'`{name}`' for name in names)} | {words} |"
        yield ""


def _grouped(fate: Fate) -> dict[str, list[str]]:
    """Flags of one fate by what is said about them, in the table's order."""
    found: dict[str, list[str]] = {}
    for flag in FLAGS.values():
        if flag.fate is fate:
            found.setdefault(_said(flag), []).append(flag.name)
    return found


def _said(flag: Flag) -> str:
    words = ", ".join(f"`{key}`" for key in flag.becomes)
    return f"{words}: {flag.remark}" if words and flag.remark else words or flag.remark


def filled(text: str) -> str:
    """A page with its tables as they are now."""
    for name, table in (("providers", providers()), ("flags", flags().strip())):
        text = re.sub(
            rf"(<!-- {name}: made by `make docs` -->\n).*?(<!-- {name}: end -->)",
            lambda match, table=table: f"{match[1]}{table}\n{match[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
