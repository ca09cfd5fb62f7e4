"""Limits and time-outs that an operator sets reach the data path."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy import wiring
from proxy.config import Settings
from proxy.config.declaration import Limits, Timeouts
from proxy.shell import limits as data_path

ELSEWHERE = {"max_flows", "flow_s", "drain_s"}
"""What is no business of the data path: sign-ins, and the end of the process."""


@pytest.mark.parametrize(
    ("section", "kind", "reaches"),
    [("limits", Limits, wiring.limits_of), ("timeouts", Timeouts, wiring.timeouts_of)],
)
def test_every_setting_reaches_the_data_path_under_its_own_name(
    section: str, kind: type[msgspec.Struct], reaches: Any
) -> None:
    defaults = msgspec.structs.asdict(kind())
    said = {name: value + 1 for name, value in defaults.items()}
    told = msgspec.structs.asdict(reaches(Settings(**{section: kind(**said)})))
    assert {name: told[name] for name in said if name not in ELSEWHERE} == {
        name: value for name, value in said.items() if name not in ELSEWHERE
    }


def test_what_nobody_can_set_stays_as_it_is() -> None:
    told = wiring.limits_of(Settings())
    assert told.max_line_bytes == data_path.Limits().max_line_bytes
    assert told.write_buffer_bytes == data_path.Limits().write_buffer_bytes
