"""What was measured of each contestant: every turn, and the median that counts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """One contestant's.

    Attributes:
        turns: name of a figure → its value in each turn.
    """

    name: str
    version: str
    turns: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, found: Mapping[str, float]) -> None:
        for name, value in found.items():
            self.turns.setdefault(name, []).append(value)

    def of(self, name: str) -> float | None:
        """The median of a figure, None if it was not measured."""
        turns = self.turns.get(name)
        return statistics.median(turns) if turns else None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "medians": {name: round(statistics.median(turns), 3) for name, turns in self.turns.items()},
            "turns": {name: [round(value, 3) for value in turns] for name, turns in self.turns.items()},
        }
