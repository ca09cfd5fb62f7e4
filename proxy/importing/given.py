"""What a configuration of oauth2-proxy says: each flag's value, and where it stands."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from typing import Any, cast

from proxy.importing.flags import BY_CONFIG, FLAGS, Flag

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


class Elsewhere(str):
    """A secret that is not here: the words say where it is (a Kubernetes Secret)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Value:
    """One flag as it was given.

    Attributes:
        value: text, bool, list of texts, seconds or a whole number, by the flag's kind.
        place: where it stands, for comments.
    """

    value: Any = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """One app of the alpha configuration, or of a flag.

    Attributes:
        uri: of the app; "" if it is a fixed answer.
        path: which requests are its own.
        rewrite: pattern by which the path is changed on the way; "" = none.
        static: status of a fixed answer; 0 = none.
        place: where it stands.
    """

    uri: str
    path: str
    place: str
    rewrite: str = ""
    static: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """One injected header of the alpha configuration.

    Attributes:
        claims: claim and prefix of each of its values; ("", "") is a fixed text.
        password: a value is Basic authentication with a fixed password.
        kept: a value that the client sends is passed on, too.
    """

    name: str
    claims: tuple[tuple[str, str], ...]
    place: str
    password: bool = False
    kept: bool = False


@dataclass(slots=True)
class Given:
    """All that was read; later layers replace earlier ones.

    Attributes:
        values: by flag.
        upstreams, request_headers, response_headers: of the alpha configuration; None = it has none.
        parameters: fixed parameters of the authorization request, of the alpha configuration.
        replicas: how many processes the source runs; 0 = not told.
        elsewhere: values that are kept elsewhere and are no secrets: where.
        troubles: what could not be understood, as (where, what).
    """

    values: dict[str, Value] = field(default_factory=dict[str, Value])
    upstreams: list[Upstream] | None = None
    request_headers: list[Header] | None = None
    response_headers: list[Header] | None = None
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    replicas: int = 0
    elsewhere: dict[str, Value] = field(default_factory=dict[str, Value])
    troubles: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def put(self, flag: Flag, raw: object, place: str) -> None:
        """Take one value as its layer writes it."""
        if isinstance(raw, Elsewhere) and not flag.secret:
            self.elsewhere[flag.name] = Value(str(raw), place)
            return
        try:
            value = converted(flag, raw)
        except ValueError as error:
            self.troubles.append((place, str(error)))
            return
        self.values[flag.name] = Value(value, place)

    def put_by_config(self, key: str, raw: object, place: str) -> None:
        """Take one value by its key in the configuration file."""
        flag = BY_CONFIG.get(key.lower())
        if flag is None:
            self.troubles.append((place, "no setting of oauth2-proxy that is known here"))
        else:
            self.put(flag, raw, place)

    def over(self, other: Given) -> None:
        """Lay another layer over this one."""
        self.values.update(other.values)
        self.elsewhere.update(other.elsewhere)
        self.replicas = max(self.replicas, other.replicas)
        for name in ("upstreams", "request_headers", "response_headers"):
            if getattr(other, name) is not None:
                setattr(self, name, getattr(other, name))
        self.parameters.update(other.parameters)
        self.troubles += other.troubles

    def text(self, name: str) -> str:
        value = self._of(name, "text")
        return value if isinstance(value, str) else ""

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._of(name, "flag")
        return value if isinstance(value, bool) else default

    def items(self, name: str) -> list[str]:
        value: list[str] | None = self._of(name, "list")
        return list(value or ())

    def seconds(self, name: str) -> float | None:
        """Of a duration; None if it is not given."""
        return self._of(name, "duration")

    def place(self, *names: str) -> str:
        """Where the first of these that was given stands; all of them where there are several."""
        return ", ".join(self.values[name].place for name in names if name in self.values)

    def _of(self, name: str, kind: str) -> Any:
        assert FLAGS[name].kind == kind, name
        value = self.values.get(name)
        return None if value is None else value.value


def converted(flag: Flag, raw: object) -> Any:
    """A value by the flag's kind.

    Raises:
        ValueError: says what is wrong, without the value.
    """
    match flag.kind:
        case "flag":
            if isinstance(raw, bool):
                return raw
            word = str(raw).strip().lower()
            if word not in _TRUE | _FALSE:
                raise ValueError("neither true nor false")
            return word in _TRUE
        case "list":
            return _items(raw)
        case "duration":
            return duration_s(raw)
        case "whole":
            try:
                return int(str(raw))
            except ValueError:
                raise ValueError("no whole number") from None
        case _:
            if isinstance(raw, Elsewhere):
                return raw
            if isinstance(raw, (dict, list)):
                raise ValueError("a table or list where one text is expected")
            return str(raw).strip()


def _items(raw: object) -> list[str]:
    if isinstance(raw, Elsewhere):
        return [raw]
    if isinstance(raw, str):
        found: list[str] = []
        try:
            for row in csv.reader([raw], skipinitialspace=True):
                found += row
        except csv.Error:
            raise ValueError("no list of texts") from None
        return [item.strip() for item in found if item.strip()]
    if isinstance(raw, list):
        return [
            item if isinstance(item, Elsewhere) else str(item).strip() for item in cast("list[object]", raw)
        ]
    raise ValueError("no list of texts")


def duration_s(raw: object) -> float:
    """Go's durations (`168h`, `1h30m`); a bare number counts as nanoseconds there, but 0 is 0.

    Raises:
        ValueError: it is none.
    """
    text = str(raw).strip()
    if re.fullmatch(r"[+-]?0(?:\.0*)?", text):
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.lstrip("+"):
        raise ValueError("no duration such as 168h or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
