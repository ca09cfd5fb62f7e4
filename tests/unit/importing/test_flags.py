"""The table of flags: complete, and true of our own settings."""

from __future__ import annotations

import csv

import pytest

from proxy.config.registry import declared
from proxy.importing.flags import BY_CONFIG, FLAGS, Fate, Flag
from tests.unit.importing.cases import HERE


def known() -> list[list[str]]:
    """Name, key and kind of each flag, as oauth2-proxy declares them."""
    lines = (HERE / "flags.csv").read_text().splitlines()
    return list(csv.reader(line for line in lines if not line.startswith("#")))


def test_every_flag_of_oauth2_proxy_is_in_the_table_and_no_other() -> None:
    assert {name for name, _, _ in known()} == set(FLAGS)
    assert len(FLAGS) > 160


@pytest.mark.parametrize(("name", "config", "kind"), known(), ids=lambda text: text)
def test_a_flag_has_its_key_and_kind(name: str, config: str, kind: str) -> None:
    flag = FLAGS[name]
    assert flag.kind == kind
    assert not config or (flag.config == config and BY_CONFIG[config] is flag)


@pytest.mark.parametrize("flag", FLAGS.values(), ids=lambda flag: flag.name)
def test_a_flag_becomes_a_setting_or_says_why_not(flag: Flag) -> None:
    if flag.fate is Fate.CARRIED:
        assert flag.becomes
        for key in flag.becomes:
            assert key in declared() or key.removesuffix("_file") in declared(), key
    else:
        assert not flag.becomes
        assert len(flag.remark) > 3 or flag.remark == "–"
    assert not flag.secret or flag.kind in ("text", "list")
