"""Brings the table of `README.md` up to date with the tests: ``python -m tests.scenarios.index``.

The cases and their words stay as they are; the last column is written anew from the names of all
tests (`test_c7_c8_…` shows C7 and C8). What a row without a test says there stays too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = TESTS / "scenarios" / "README.md"

_ROW = re.compile(r"\| ([A-JT]\d+) \| (.*?) \| (.*) \|")
_IDS = re.compile(r"test_((?:[a-jt]\d+_)+)")


def tests_by_id() -> dict[str, list[str]]:
    """For every id the tests that carry it, as "`file` `name`"."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if ids := _IDS.match(node.name):
                for each in ids[1].strip("_").split("_"):
                    where = f"`{path.relative_to(TESTS)}` `{node.name}`"
                    found.setdefault(each.upper(), []).append(where)
    return found


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """The table's rows: id, case, last column."""
    for line in text.splitlines():
        if row := _ROW.fullmatch(line):
            yield row[1], row[2], row[3]


def updated(text: str) -> str:
    """The README with its last column written anew."""
    found = tests_by_id()

    def row(match: re.Match[str]) -> str:
        shown = "<br>".join(found.get(match[1], ()))
        if not shown:
            shown = match[3] if not match[3].startswith("`") else "open"
        return f"| {match[1]} | {match[2]} | {shown} |"

    return "\n".join(_ROW.sub(row, line) for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
