"""`python -m proxy.guide DIRECTORY`: write the pages about providers."""

from __future__ import annotations

import sys
from pathlib import Path

from proxy.guide.pages import documents


def main(directory: str) -> None:
    """Write every page; what is not made any more is removed."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    made = documents()
    for old in target.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (target / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
