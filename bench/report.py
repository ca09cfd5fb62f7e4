"""A table on the terminal, and bounds that fail the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Report:
    """What a bench found. Print it, then leave with its `status`.

    Attributes:
        failed: bounds that did not hold, in words.
    """

    failed: list[str] = field(default_factory=list[str])

    def bound(self, name: str, found: float, limit: float, *, exactly: bool = False) -> None:
        """`found` must be `limit`, or at most that."""
        good = found == limit if exactly else found <= limit
        if not good:
            self.failed.append(f"{name}: {found:g}, {'must be' if exactly else 'at most'} {limit:g}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns as wide as what is in them; numbers to the right."""
        text = [[str(each) for each in row] for row in (head, *rows)]
        widths = [max(len(row[n]) for row in text) for n in range(len(head))]
        for row in text:
            cells = [
                each.ljust(width) if n == 0 else each.rjust(width)
                for n, (each, width) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(cells))

    @property
    def status(self) -> int:
        """0 if every bound held; else says which did not."""
        for line in self.failed:
            print(f"FAILED  {line}")
        if not self.failed:
            print("all bounds held")
        return 1 if self.failed else 0
