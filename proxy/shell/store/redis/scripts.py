"""The scripts in `lua/`, each with its digest. What each one promises stands in its head comment."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from msgspec import Struct


class Script(Struct, frozen=True):
    """One operation, atomic in Redis.

    Attributes:
        name: of the file, without its ending.
        source: what EVAL is given; also teaches the server what EVALSHA means.
        digest: what EVALSHA is given.
    """

    name: str
    source: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`, behind what all of them share."""
    folder = Path(__file__).parent / "lua"
    source = (folder / "common.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
