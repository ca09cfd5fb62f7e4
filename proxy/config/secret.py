"""Values that must not show in a repr, a log line or a traceback."""

from __future__ import annotations

import re
from typing import NoReturn

# Up to the last @, for an unescaped one in a password; and whatever a query may hold.
_CREDENTIALS = re.compile(r"(?<=//)[^?#]*@")
_QUERY = re.compile(r"(?<=\?).+", re.DOTALL)


class Secret:
    """A text that shows only to whoever calls `reveal()`. An empty one counts as not set."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself; whoever calls this is looked at in a review."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._text == other._text

    __hash__ = None  # type: ignore[assignment]  # a secret is no key of anything

    def __str__(self) -> str:
        return "set" if self._text else "not set"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class SecretUrl(Secret):
    """A URL that may hold a password: it shows without its user part and its query."""

    __slots__ = ()

    def __str__(self) -> str:
        return _QUERY.sub("…", _CREDENTIALS.sub("…@", self._text))
