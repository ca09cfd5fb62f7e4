"""Words for messages: what a setting expects, what was found instead."""

from __future__ import annotations

import json

from proxy.config.registry import Setting


def expected(setting: Setting) -> str:
    """Say what a value of this setting looks like, e.g. ``a number of seconds from 0 to 60``."""
    unit = f" of {setting.unit}" if setting.unit in ("seconds", "bytes") else ""
    meta = setting.meta
    limits = f" from {number(meta.ge)} to {number(meta.le)}" if meta.ge is not None else ""
    examples = f", e.g. {plain(meta.examples[0])}" if meta.examples else ""
    match setting.kind:
        case "flag":
            return "true or false"
        case "choice":
            return "one of " + ", ".join(setting.choices)
        case "whole":
            return f"a whole number{unit}{limits}"
        case "number":
            return f"a number{unit}{limits}"
        case "list":
            return f"a list of texts{examples}"
        case "table":
            return f"a table of texts (a JSON object in a variable){examples}"
        case "secret":
            return "a text"
        case _:
            return f"a text{examples}"


def shape(value: object, *, hide: bool = False) -> str:
    """Say what was found, e.g. ``the text 'soon'``; with `hide`, nothing of the value."""
    if isinstance(value, str):
        # What looks like a URL with a password in the wrong place is not repeated either.
        if hide or "@" in value or len(value) > 60:
            return f"a text of {len(value)} characters"
        return f"the text {value!r}"
    if isinstance(value, bool):
        return f"the flag {str(value).lower()}" if not hide else "a flag"
    if isinstance(value, int | float):
        return f"the number {value}" if not hide else "a number"
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"


def number(value: float | None) -> str:
    """Write a number without a tail of zeros."""
    return "" if value is None else str(int(value)) if value == int(value) else str(value)


def plain(value: object) -> str:
    """An example, as a variable of the environment would hold it."""
    return value if isinstance(value, str) else json.dumps(value)
