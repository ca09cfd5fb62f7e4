"""`python -m proxy` and the `nightporter` command."""

from __future__ import annotations

import sys

from proxy.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
