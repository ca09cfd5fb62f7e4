"""Files that hold a configuration of oauth2-proxy, whichever kind they are."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

from proxy.errors import ConfigError, Problem
from proxy.importing.arguments import from_arguments
from proxy.importing.given import Given

MAX_BYTES = 1 << 20


def from_file(path: str) -> Given:
    """Read one file: oauth2-proxy's TOML, alpha YAML, a Kubernetes manifest, or a list of arguments.

    Raises:
        ConfigError: it cannot be read, or is none of these.
    """
    text = _text(path)
    name = Path(path).name
    if name.endswith((".yaml", ".yml", ".json")):
        from proxy.importing.yaml_files import from_yaml

        return from_yaml(text, name)
    lines = [line.strip().removesuffix("\\").rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and all(line.startswith("-") for line in lines):
        return from_arguments([word for line in lines for word in _words(line)])
    return from_toml(text, name)


def from_toml(text: str, name: str) -> Given:
    """Read oauth2-proxy's own file.

    Raises:
        ConfigError: it is not TOML; says where, never what.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at ([^()]*)\)$", str(error))
        where = place[1] if place else "an unknown place"
        raise ConfigError(
            [Problem(name, f"not TOML at {where}", "name oauth2-proxy.cfg or a YAML file")]
        ) from None
    given = Given()
    for key, value in content.items():
        given.put_by_config(key, value, key)
    return given


def _words(line: str) -> list[str]:
    """The arguments of a line: several as a shell reads them, or one whose value may hold blanks."""
    if re.match(r"-[\w-]+=[^\"']*$", line) and not re.search(r"\s-", line):
        return [line]
    try:
        return shlex.split(line)
    except ValueError:
        return [line]


def _text(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError([Problem(path, f"longer than {MAX_BYTES} bytes", "name a configuration file")])
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError([Problem(path, error.strerror or "unreadable", "name a readable file")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(path, "not UTF-8", "save the file as UTF-8")]) from None
