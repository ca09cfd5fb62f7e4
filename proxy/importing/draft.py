"""What the translators write: our settings with their origin, and what there is to say."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from proxy.config.registry import declared

_CREDENTIALS = re.compile(r"(?<=//)[^/?#\s]*@")

Plain = str | bool | float | tuple[str, ...] | dict[str, str]


class Weight(enum.IntEnum):
    """How much a note matters: somebody must decide, something is missing, something is different."""

    DECIDE = 0
    MISSING = 1
    CHANGED = 2


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to tell.

    Attributes:
        about: the source's setting, as it is written there.
    """

    weight: Weight
    about: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One of our settings.

    Attributes:
        value: as it will be written.
        origin: where it comes from.
        advice: what to do about it; a comment above the line.
        secret: what the file that it names is to hold, to try the result; never written.
        variable: the value comes from a variable; `value` says where that has it from.
    """

    key: str
    value: Plain
    origin: str
    advice: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)
    variable: bool = False


@dataclass(slots=True)
class Draft:
    """Our configuration while it is being written."""

    lines: dict[str, Line] = field(default_factory=dict[str, Line])
    notes: list[Note] = field(default_factory=list[Note])

    def put(self, key: str, value: Plain, origin: str, *advice: str, secret: str = "") -> bool:
        """Write one setting; False if this version has none of that name."""
        known = declared()
        if key not in known and not (key.endswith("_file") and key.removesuffix("_file") in known):
            return False
        if isinstance(value, str) and _CREDENTIALS.search(value):
            value = _CREDENTIALS.sub("", value)
            self.decide(origin, "credentials in an address; they were cut out")
        self.lines[key] = Line(key, value, origin, advice, secret)
        return True

    def from_variable(self, key: str, origin: str, where: str) -> None:
        """Leave a setting to its variable, because its value is kept elsewhere."""
        self.lines[key] = Line(key, where, origin, variable=True)

    def decide(self, about: str, text: str) -> None:
        """Somebody must decide, before the result is used."""
        self.notes.append(Note(Weight.DECIDE, about, text))

    def missing(self, about: str, text: str) -> None:
        """Something is not there any more."""
        self.notes.append(Note(Weight.MISSING, about, text))

    def changed(self, about: str, text: str) -> None:
        """Something is different, and nothing is to be done."""
        self.notes.append(Note(Weight.CHANGED, about, text))


def harmless(text: str) -> str:
    """A text that may stand in a comment: one line, visible characters, no credentials."""
    text = _CREDENTIALS.sub("…@", text)
    return "".join(char if char.isprintable() else "?" for char in text)
