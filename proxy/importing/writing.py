"""The draft as TOML: a comment to every line, and at the end what there is to say."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.config.reference import toml_value
from proxy.config.registry import GROUPS, declared
from proxy.importing.draft import Draft, Line, Weight, harmless

WIDTH = 100

TITLES = {
    Weight.DECIDE: "To decide before this is used",
    Weight.MISSING: "Not carried over",
    Weight.CHANGED: "Different now",
}


def toml(draft: Draft, problems: list[str], waits_for: list[str]) -> str:
    """The whole file.

    Args:
        problems: for which `serve` would refuse it.
        waits_for: files and directories that it names and that are not here.
    """
    lines = [
        "# Nightporter's configuration, made from oauth2-proxy's by `nightporter import oauth2-proxy`.",
        "",
    ]
    order = {key: place for place, key in enumerate(declared())}
    known = sorted(draft.lines.values(), key=lambda line: order[_base(line.key)])
    tables = [line for line in known if "." in line.key or isinstance(line.value, dict)]
    for line in known:
        if line not in tables:
            lines += _flat(line)
    for line in tables:
        if isinstance(line.value, dict):
            lines += ["", *_advice(line), f"[{line.key}]  # {harmless(line.origin)}"]
            lines += [f"{_key(name)} = {toml_value(value)}" for name, value in line.value.items()]
    for group in GROUPS:
        inner = [line for line in tables if line.key.startswith(f"{group}.")]
        if inner:
            lines += ["", f"[{group}]"]
            for line in inner:
                lines += _flat(line, line.key.removeprefix(f"{group}."))
    lines += [f"# {text}".rstrip() for text in report(draft, problems, waits_for)]
    return "\n".join(lines) + "\n"


def report(draft: Draft, problems: list[str], waits_for: list[str]) -> Iterator[str]:
    """What there is to say, one line each, beginning with an empty one."""
    if problems:
        yield ""
        yield "Problems that keep Nightporter from starting with this:"
        yield from (f"  - {harmless(problem)}" for problem in problems)
    for weight, title in TITLES.items():
        abouts: dict[str, dict[str, None]] = {}
        for note in draft.notes:
            if note.weight is weight:
                abouts.setdefault(note.text, {})[note.about] = None
        if abouts:
            yield ""
            yield f"{title}:"
            yield from (
                f"  - {harmless(', '.join(about))}: {harmless(text)}" for text, about in abouts.items()
            )
    if waits_for:
        yield ""
        yield "To be there when Nightporter starts (not on this machine now):"
        yield from (f"  - {harmless(path)}" for path in waits_for)


def _flat(line: Line, key: str = "") -> list[str]:
    key = key or line.key
    if line.variable:
        variable = declared()[line.key].variable
        return [f"# {key}: set {variable} from {harmless(str(line.value))}  # {harmless(line.origin)}"]
    text = f"{key} = {toml_value(line.value)}"
    if isinstance(line.value, tuple) and len(text) > WIDTH:
        items = [f"    {toml_value(item)}," for item in line.value]
        return [*_advice(line), f"{key} = [  # {harmless(line.origin)}", *items, "]"]
    return [*_advice(line), f"{text}  # {harmless(line.origin)}"]


def _advice(line: Line) -> list[str]:
    return [f"# {harmless(text)}" for text in line.advice]


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else toml_value(name)


def _base(key: str) -> str:
    return key if key in declared() else key.removesuffix("_file")
