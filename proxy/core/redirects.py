"""Which return targets are safe: paths on this origin, and nothing a browser could read otherwise."""

from __future__ import annotations

import re
from urllib.parse import unquote

MAX_TARGET_CHARS = 2048

_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""One slash, then visible ASCII without back-slashes: browsers turn `\\` into `/` and drop tabs and
line ends before they look (WHATWG URL §4.4), so none of these may occur at all."""


def safe_return_target(raw: str, prefix: str) -> str:
    """`raw` if it leads back into the app on this origin, else "/".

    Decoding must not change that: what an app decodes once more and redirects to is judged too.

    Args:
        raw: as the request named it.
        prefix: of our own pages; a target below it would only go round.
    """
    if len(raw) > MAX_TARGET_CHARS or not _LOCAL.fullmatch(raw):
        return "/"
    path = raw.partition("?")[0].partition("#")[0]
    for _ in range(3):
        if "\\" in path or path.startswith("//") or any(ord(char) < 32 or ord(char) == 127 for char in path):
            return "/"
        segments = _resolve(path)
        if not segments.startswith("/") or segments.startswith("//"):
            return "/"
        if segments == prefix or segments.startswith(prefix + "/"):
            return "/"
        decoded = unquote(path)
        if decoded == path:
            return raw
        path = decoded
    return "/"


def _resolve(path: str) -> str:
    out: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            if out:
                out.pop()
        elif segment != ".":
            out.append(segment)
    return "/" + "/".join(out)
