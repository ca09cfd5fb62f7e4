"""Load what was written, as `serve` would where its files are.

The result is often made on another machine than the one it will run on: a file that is not here gets
a stand-in, so that everything else is judged, and is named.
"""

from __future__ import annotations

import base64
import os
import tomllib
from typing import Any

from proxy.config import read
from proxy.config.registry import declared
from proxy.errors import ConfigError
from proxy.importing.draft import Draft, Line

_STAND_INS = {
    "cookie_keys": base64.urlsafe_b64encode(bytes(32)).decode(),
    "client_key": "-----BEGIN PRIVATE KEY-----",
}


def tried(text: str, draft: Draft) -> tuple[list[str], list[str]]:
    """The loader's problems with a text, and the files that it names and that are not here."""
    content: dict[str, Any] = tomllib.loads(text)
    waits_for: list[str] = []
    for line in draft.lines.values():
        if line.variable:
            content[line.key] = "stand-in"
        elif line.key.endswith("_file") and isinstance(line.value, str):
            _stand_in(content, line, line.value, waits_for)
    store = content.get("store", "")
    if isinstance(store, str) and store.startswith("sqlite:"):
        directory = os.path.dirname(store.removeprefix("sqlite:"))
        if not os.path.isdir(directory):
            waits_for.append(f"{directory} (a directory)")
            content["store"] = "memory:"
    try:
        read(env={}, toml=content)
    except ConfigError as error:
        return [str(problem) for problem in error.problems], waits_for
    return [], waits_for


def _stand_in(content: dict[str, Any], line: Line, path: str, waits_for: list[str]) -> None:
    if os.path.exists(path) and not line.secret:
        return
    waits_for.append(path)
    group, _, name = line.key.rpartition(".")
    table = content[group] if group else content
    del table[name]
    key = line.key.removesuffix("_file")
    if key in declared() and declared()[key].has_file:
        content[key] = line.secret or _STAND_INS.get(key, "stand-in")
