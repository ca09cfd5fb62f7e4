"""The table of scenarios names tests that exist, and leaves out none of the cases that must be shown."""

from __future__ import annotations

import re

from tests.scenarios import index

SHOWN = (
    "A1 A4 B1 B2 B6 C6 C7 C8 C9 C10 C20 D1 D4 D6 E6 E7 E8 E9 F1 F2 F8 F9 F10 F11 F13 F14 F18 F20 F21 F22 H3"
)


def test_every_named_test_exists_and_carries_the_id() -> None:
    found = index.tests_by_id()
    for case, _, shown in index.rows(index.README.read_text()):
        for named in re.findall(r"`[^`]+` `[^`]+`", shown):
            assert named in found.get(case, ()), f"{case}: run python -m tests.scenarios.index"


def test_every_case_is_in_the_table_once() -> None:
    listed = [case for case, _, _ in index.rows(index.README.read_text())]
    assert len(listed) == len(set(listed)) > 100
    assert index.tests_by_id().keys() <= set(listed), "a test carries an id that the table does not know"


def test_the_cases_of_the_door_are_shown() -> None:
    table = {case: shown for case, _, shown in index.rows(index.README.read_text())}
    for case in SHOWN.split():
        assert table[case].startswith("`"), case


def test_what_is_not_shown_says_why() -> None:
    for case, text, shown in index.rows(index.README.read_text()):
        assert text, case
        assert shown.startswith(("`", "open: ")), case
