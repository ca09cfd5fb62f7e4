"""The page about coming from oauth2-proxy says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.core.providers import PROFILES
from proxy.importing.flags import FLAGS
from proxy.importing.page import filled, flags
from proxy.importing.paths import plain_paths
from proxy.importing.provider import PROVIDERS

PAGE = Path(__file__).parents[2] / "docs/from-oauth2-proxy.md"


def test_its_tables_are_up_to_date() -> None:
    text = PAGE.read_text()
    assert filled(text) == text, "run `make docs`"


def test_every_flag_is_in_its_tables_once() -> None:
    named = [name for row in flags().splitlines() for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert sorted(name for name in named if name in FLAGS) == sorted(FLAGS)


def test_the_profiles_that_stand_in_exist() -> None:
    for name, counterpart in PROVIDERS.items():
        assert not counterpart.profile or counterpart.profile in PROFILES, name


def test_its_examples_of_expressions_are_true() -> None:
    text = PAGE.read_text()
    part = text[text.index("## Public paths") : text.index("## Providers")]
    examples = re.findall(r"`([^`]+)`", part.partition("carried over")[2].partition("; one without")[0])
    assert len(examples) == 4
    for expression in examples:
        assert plain_paths(expression)[1] is False, expression
    assert plain_paths("^/public") == (["/public", "/public/"], True)
    assert "`^/public` becomes `/public` and" in part
