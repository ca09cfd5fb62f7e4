"""Read the configuration: four layers, every value judged by itself, all problems at once.

``--set`` beats the environment, the environment beats the TOML file, the file beats the
default. msgspec stops at its first error, so each setting is converted alone; what one
field cannot say is in the rules (`checks.py`). Only the layer that wins is read: a ``_FILE`` that is
overridden is not opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import msgspec
from msgspec import Struct, field

from proxy.config.checks import check, warnings
from proxy.config.declaration import Settings, Several
from proxy.config.grammar import origin, split
from proxy.config.registry import (
    GROUPS,
    NEVER_SHARED,
    OF_A_PROVIDER,
    Setting,
    declared,
    of_a_provider,
)
from proxy.config.secret import Secret, SecretUrl
from proxy.config.several import check_one, check_together, several_of
from proxy.config.wording import expected, shape
from proxy.errors import ConfigError, Problem

PREFIX = "NIGHTPORTER_"
CONFIG_VARIABLE = "NIGHTPORTER_CONFIG"
MAX_SECRET_FILE_BYTES = 65_536

# A Service called nightporter makes Kubernetes put these into every pod of its namespace
# ("Docker links compatible" variables); they are not meant for us.
_SERVICE_LINKS = re.compile(
    r"NIGHTPORTER_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)


@cache
def _provider_variable() -> re.Pattern[str]:
    keys = "|".join(key.upper() for key in of_a_provider())
    return re.compile(rf"NIGHTPORTER_PROVIDERS_(?P<name>[A-Z0-9_]+?)_(?P<key>{keys})(?P<file>_FILE)?")


class Loaded(Struct, frozen=True):
    """A configuration and where it came from.

    Attributes:
        origins: key → ``default``, ``file``, ``environment`` or ``--set``.
        warnings: what is allowed and still deserves a line in the log at every start.
        files: the files that were read (TOML, secrets), for whoever watches them.
    """

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...]
    files: tuple[str, ...]


class _Given(Struct):
    """One value as it stands in its layer."""

    value: object
    layer: str
    name: str
    from_file: bool = False


class _Reading(Struct):
    given: dict[str, _Given] = field(default_factory=dict[str, _Given])
    providers: dict[str, _Reading] = field(default_factory=dict[str, "_Reading"])
    problems: list[Problem] = field(default_factory=list[Problem])
    bad: set[str] = field(default_factory=set[str])
    files: list[str] = field(default_factory=list[str])

    def refuse(self, key: str, found: str, remedy: str) -> None:
        self.problems.append(Problem(key, found, remedy))
        self.bad.add(key)


def load(
    *,
    env: Mapping[str, str] | None = None,
    toml: Mapping[str, object] | None = None,
    file: str = "",
    overrides: Sequence[str] = (),
) -> Settings:
    """Read the configuration or refuse with all that is wrong with it.

    Args:
        env: instead of the process's environment.
        toml: the content of a configuration file, instead of reading one.
        file: path of the configuration file; otherwise `NIGHTPORTER_CONFIG` names it.
        overrides: ``key=value`` each, as `--set` takes them.
    Raises:
        ConfigError: holds every problem.
    """
    return read(env=env, toml=toml, file=file, overrides=overrides).settings


def read(
    *,
    env: Mapping[str, str] | None = None,
    toml: Mapping[str, object] | None = None,
    file: str = "",
    overrides: Sequence[str] = (),
) -> Loaded:
    """Like `load`, with the origin of each value, the warnings and the files that were read."""
    env = os.environ if env is None else env
    reading = _Reading()
    file = file or (env.get(CONFIG_VARIABLE, "") if toml is None else "")
    if toml is None and file:
        toml = _toml(file, reading)
    _from_toml(toml or {}, reading)
    _from_env(env, reading)
    _from_overrides(overrides, reading)

    values: dict[str, object] = {}
    for key, given in reading.given.items():
        if key not in reading.bad:
            _convert(declared()[key], given, values, reading)
    settings = _assemble(values)
    if reading.providers:
        settings = _several(settings, values, reading)
    if "config" not in reading.bad:
        reading.problems += check(settings, reading.bad)
    if reading.problems:
        raise ConfigError(reading.problems)
    origins = {key: reading.given[key].layer if key in reading.given else "default" for key in declared()}
    return Loaded(settings, origins, warnings(settings), tuple(reading.files))


def _toml(path: str, reading: _Reading) -> dict[str, object]:
    import tomllib  # many are configured by their environment alone

    try:
        with open(path, "rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        reading.refuse("config", f"{path}: {error.strerror}", "name a readable TOML file with --config")
        return {}
    except UnicodeDecodeError:
        reading.refuse("config", f"{path} is not UTF-8", "save the file as UTF-8")
        return {}
    except tomllib.TOMLDecodeError as error:
        # The parser's words may hold a character of the file: only the place is told.
        place = re.search(r"\(at ([^()]*)\)$", str(error))
        where = place[1] if place else "an unknown place"
        reading.refuse("config", f"{path} is not TOML at {where}", 'write key = "value" lines and [tables]')
        return {}
    reading.files.append(path)
    return content


def _from_toml(content: Mapping[str, object], reading: _Reading) -> None:
    for name, value in content.items():
        if name == "providers":
            _providers_from_toml(value, reading)
        elif name not in GROUPS:
            _take(name, value, "file", name, reading)
        elif isinstance(value, dict):
            for inner, item in cast(dict[str, object], value).items():
                _take(f"{name}.{inner}", item, "file", f"{name}.{inner}", reading)
        else:
            reading.refuse(name, shape(value), f"write a table: [{name}]")


def _from_env(env: Mapping[str, str], reading: _Reading) -> None:
    variables = {setting.variable: key for key, setting in declared().items()}
    for name in sorted(env):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or _SERVICE_LINKS.fullmatch(name):
            continue
        key = variables.get(name)
        file_key = variables.get(name.removesuffix("_FILE")) if key is None else None
        if not env[name] and (key or file_key):
            continue  # an empty variable counts as not set
        of_one = _provider_variable().fullmatch(name) if key is None and file_key is None else None
        if of_one is not None:
            one = of_one["name"].lower().replace("_", "-")
            inner = of_one["key"].lower() + (of_one["file"] or "").lower()
            if env[name]:
                _take(inner, env[name], "environment", name, _provider(one, reading), of_a_provider())
        elif key is not None:
            _take(key, env[name], "environment", name, reading)
        elif file_key is not None and name.endswith("_FILE") and declared()[file_key].has_file:
            _take(file_key + "_file", env[name], "environment", name, reading)
        else:
            reading.problems.append(
                Problem(name, "no such variable", _did_you_mean(name, [*variables, *_file_names(variables)]))
            )


def _from_overrides(overrides: Sequence[str], reading: _Reading) -> None:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            reading.problems.append(Problem("--set", "no `=` in it", "write --set key=value"))
            continue
        among, into = declared(), reading
        words = key.split(".")
        if words[0] == "providers" and len(words) == 3:
            key, among, into = words[2], of_a_provider(), _provider(words[1], reading)
        setting = among.get(key)
        if setting is not None and setting.kind == "secret":
            remedy = f"write --set {key}_file=PATH, or set {setting.variable}_FILE"
            into.refuse(key, "a secret on the command line, where everybody sees it", remedy)
            continue
        _take(key, value, "--set", f"--set {override.partition('=')[0]}", into, among)


def _providers_from_toml(value: object, reading: _Reading) -> None:
    if not isinstance(value, dict):
        reading.refuse("providers", shape(value), "write a table for each: [providers.NAME]")
        return
    for name, table in cast(dict[str, object], value).items():
        into = _provider(name, reading)
        if not isinstance(table, dict):
            into.refuse("", shape(table), f"write a table: [providers.{name}]")
            continue
        for key, item in cast(dict[str, object], table).items():
            _take(key, item, "file", f"providers.{name}.{key}", into, of_a_provider())


def _provider(name: str, reading: _Reading) -> _Reading:
    return reading.providers.setdefault(name, _Reading())


def _take(
    key: str,
    value: object,
    layer: str,
    name: str,
    reading: _Reading,
    among: Mapping[str, Setting] | None = None,
) -> None:
    """Put one value into its place; a later layer replaces an earlier one."""
    target, from_file = key, False
    among = declared() if among is None else among
    if key not in among and key.endswith("_file"):
        target, from_file = key.removesuffix("_file"), True
    setting = among.get(target)
    if setting is None or (from_file and not setting.has_file):
        names = list(among)
        names += [f"{each.key}_file" for each in among.values() if each.has_file]
        reading.problems.append(Problem(key, "no such setting", _did_you_mean(key, [*names, *GROUPS])))
        return
    before = reading.given.get(target)
    if before is not None and before.layer == layer and before.from_file != from_file:
        both = (
            f"{before.name} and {name} are both set"
            if from_file
            else f"{name} and {before.name} are both set"
        )
        reading.refuse(target, both, "keep one of them")
        return
    reading.given[target] = _Given(value, layer, name, from_file)


def _convert(setting: Setting, given: _Given, values: dict[str, object], reading: _Reading) -> None:
    value = given.value
    if given.from_file:
        text = _secret_file(setting, given, reading)
        if text is None:
            return
        value = text
    if setting.kind in ("secret", "url"):
        if not isinstance(value, str):
            reading.refuse(
                setting.key, f"{shape(value, hide=True)} ({given.name})", f"write {expected(setting)}"
            )
            return
        values[setting.key] = (Secret if setting.kind == "secret" else SecretUrl)(value)
        return
    raw = value
    if isinstance(value, str) and setting.kind == "list":
        value = split(value)
    elif isinstance(value, str) and setting.kind == "table":
        try:
            value = json.loads(value)
        except ValueError:
            value = raw
    try:
        # Text is what the environment and --set have; a file says what it means.
        converted = msgspec.convert(value, setting.type, strict=given.layer == "file")
    except msgspec.ValidationError:
        reading.refuse(setting.key, f"{shape(raw)} ({given.name})", f"write {expected(setting)}")
        return
    if setting.key == "public_url":
        converted = tuple(_canonical(url) for url in converted)
    values[setting.key] = converted


def _secret_file(setting: Setting, given: _Given, reading: _Reading) -> str | None:
    path = given.value
    remedy = "name a readable file that holds the value and nothing else"
    if not isinstance(path, str) or not path:
        reading.refuse(setting.key, f"{shape(path)} ({given.name})", "write the path of a file")
        return None
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_SECRET_FILE_BYTES + 1)
        text = content.decode().strip()
    except OSError as error:
        reading.refuse(setting.key, f"{given.name}: {path}: {error.strerror}", remedy)
        return None
    except (UnicodeDecodeError, ValueError):
        reading.refuse(setting.key, f"{given.name}: {path} is not UTF-8 text", remedy)
        return None
    if not text or len(content) > MAX_SECRET_FILE_BYTES:
        found = "is empty" if not text else f"is longer than {MAX_SECRET_FILE_BYTES} bytes"
        reading.refuse(setting.key, f"{given.name}: {path} {found}", remedy)
        return None
    reading.files.append(path)
    return text


def _canonical(url: str) -> str:
    try:
        return origin(url)
    except ValueError:
        return url  # `checks` says what is wrong with it


def _assemble(values: Mapping[str, object]) -> Settings:
    flat: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for key, value in values.items():
        setting = declared()[key]
        (nested[setting.group] if setting.group else flat)[setting.attribute] = value
    for group, struct in GROUPS.items():
        if nested[group]:
            flat[group] = struct(**nested[group])
    return Settings(**flat)


def _several(base: Settings, values: Mapping[str, object], reading: _Reading) -> Settings:
    """The settings with their providers, each one's settings whole."""
    for key in sorted(NEVER_SHARED & reading.given.keys()):
        found = f"set beside the tables {', '.join(f'[providers.{name}]' for name in reading.providers)}"
        reading.refuse(key, found, "move it into the table of its provider")
    made: dict[str, Several] = {}
    for name, one in reading.providers.items():
        own: dict[str, object] = {}
        for key, given in one.given.items():
            if key not in one.bad:
                _convert(of_a_provider()[key], given, own, one)
        made[name] = several_of(name, base, own)
        one.problems += check_one(name, made[name], one.bad)
        for problem in one.problems:
            key = f"providers.{name}.{problem.key}".rstrip(".")
            reading.problems.append(Problem(key, problem.found, problem.remedy))
        reading.files += one.files
    reading.bad |= set(OF_A_PROVIDER)  # the tables have their own; here nothing is asked for
    reading.problems += check_together(made, base)
    return msgspec.structs.replace(base, providers=made)


def _file_names(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}_FILE" for name, key in variables.items() if declared()[key].has_file]


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    import difflib  # only on the way out

    close = difflib.get_close_matches(name, names, 1, 0.75)
    return (
        f"did you mean {close[0]}?" if close else "remove it; `nightporter config docs` lists all there are"
    )
