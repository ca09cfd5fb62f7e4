"""Paths that need no sign-in: from regular expressions to plain paths.

Our rules are paths and prefixes, because whatever else matches is how such rules were got around
(GHSA-7rh7-c77v-6434). An expression that says no more than that is written as one; where the
rule is narrower than the expression, that is said; none is ever wider.
"""

from __future__ import annotations

import re
from itertools import product

from proxy.importing.draft import Draft, harmless
from proxy.importing.given import Given

MOST = 32
"""Paths out of one expression."""

_SOUND = re.compile(r"/[A-Za-z0-9._~!$&'()+,=:@/-]*")
_REST = re.compile(r"(?:\.\*|\(\.\*\))\$?$")


class NotPlain(ValueError):
    """The expression says more than a path or a prefix can."""


def translate(given: Given, draft: Draft) -> None:
    """Write `public_paths`."""
    found: dict[str, None] = {}
    for name in ("skip-auth-route", "skip-auth-regex"):
        for item in given.items(name):
            method, negated, expression = "", False, item
            if name == "skip-auth-route":
                method, negated, expression = _split(item)
            about, shown = given.place(name), harmless(item)
            if negated:
                draft.missing(about, f"{shown}: everything but a path; name what is public in public_paths")
            elif method:
                draft.missing(
                    about,
                    f"{shown}: a rule for {method} only; public_paths opens a path for every method",
                )
            else:
                try:
                    paths, narrower = plain_paths(expression)
                except NotPlain as error:
                    draft.missing(about, f"{shown}: {error}; write plain paths into public_paths")
                    continue
                found.update(dict.fromkeys(paths))
                if narrower:
                    draft.changed(
                        about, f"{shown} is narrower now: {' '.join(paths)} (the expression matches more)"
                    )
    if found:
        draft.put("public_paths", tuple(found), given.place("skip-auth-route", "skip-auth-regex"))


def _split(item: str) -> tuple[str, bool, str]:
    """Method, whether it is all but the path, expression."""
    parts = re.split(r"!?=", item, maxsplit=1)
    if len(parts) == 1:
        return "", False, item
    return parts[0].upper(), f"{parts[0]}!=" == item[: len(parts[0]) + 2], parts[1]


def plain_paths(expression: str) -> tuple[list[str], bool]:
    """The paths that an expression means, and whether they are fewer than it matches.

    Raises:
        NotPlain: it means something else, or more.
    """
    found: list[str] = []
    narrower = False
    for branch in _branches(expression):
        anchored = branch.startswith("^")
        branch = branch.removeprefix("^")
        rest = _REST.search(branch)
        # `/x.*$` ends nowhere: only a `$` after plain text does.
        closed = branch.endswith("$") and not branch.endswith("\\$") and not rest
        body = branch[: rest.start()] if rest else branch.removesuffix("$") if closed else branch
        optional = body.endswith(("(/.*)?", "(?:/.*)?"))
        if optional:
            body = body[: body.rindex("(")]
        slash = body.endswith("/?")
        for path in _literals(body.removesuffix("/?")):
            if not _SOUND.fullmatch(path) or path == "/" or "//" in path or "/." in path:
                why = "everything is public then" if path == "/" else "no plain path at its beginning"
                raise NotPlain(why)
            if path.endswith("/"):
                if closed:
                    raise NotPlain("one page whose path ends in /, which here means everything below it")
                found.append(path)
            elif optional:
                found += [path, path + "/"]
            elif closed:
                found.append(path)
                narrower |= slash  # `/x/` alone cannot be named
            else:
                found += [path, path + "/"]
                narrower = True
        narrower |= not anchored
        if len(found) > MOST:
            raise NotPlain("too many paths")
    return list(dict.fromkeys(found)), narrower


def _branches(expression: str) -> list[str]:
    """The alternatives at the top level; `^(a|b)` counts as `^a|^b`."""
    whole = re.fullmatch(r"(\^?)\((?:\?:)?(.*)\)(\$?)", expression)
    if whole and _balanced(whole[2]):
        return [
            ("^" if whole[1] or part.startswith("^") else "")
            + part.removeprefix("^")
            + ("" if part.endswith("$") else whole[3])
            for part in _split_bars(whole[2])
        ]
    return _split_bars(expression)


def _balanced(text: str) -> bool:
    depth = 0
    for char in re.sub(r"\\.", "", text):
        depth += (char == "(") - (char == ")")
        if depth < 0:
            return False
    return depth == 0


def _split_bars(text: str) -> list[str]:
    parts: list[str] = []
    depth = start = at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "|" and depth == 0:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    parts.append(text[start:])
    return parts


def _literals(text: str) -> list[str]:
    """Every text that a pattern of literals, escapes and groups of alternatives stands for."""
    pieces: list[list[str]] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            if at + 1 >= len(text) or text[at + 1].isalnum():
                raise NotPlain("a class of characters in it")
            pieces.append([text[at + 1]])
            at += 2
        elif char == "(":
            end = _closing(text, at)
            inner = text[at + 1 : end].removeprefix("?:")
            if inner.startswith("?") or text[end + 1 : end + 2] in ("?", "*", "+", "{"):
                raise NotPlain("a repeated or special group in it")
            pieces.append([each for part in _split_bars(inner) for each in _literals(part)])
            at = end + 1
        elif char in "*+?[]{}^$)":
            raise NotPlain("wildcards within it")
        else:
            # An unescaped dot, too, counts as what was meant.
            if text[at + 1 : at + 2] in ("*", "+", "?", "{"):
                raise NotPlain("a repetition in it")
            pieces.append([char])
            at += 1
    found = ["".join(each) for each in product(*pieces)] if _few(pieces) else []
    if not found:
        raise NotPlain("too many paths")
    return found


def _few(pieces: list[list[str]]) -> bool:
    count = 1
    for piece in pieces:
        count *= len(piece)
        if count > MOST:
            return False
    return True


def _closing(text: str, start: int) -> int:
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "()":
            depth += 1 if text[at] == "(" else -1
            if depth == 0:
                return at
        at += 1
    raise NotPlain("a bracket that is not closed")
