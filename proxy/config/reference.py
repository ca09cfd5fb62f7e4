"""The declarations written down: `config show`, the JSON schema, the reference page, `--help`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from proxy.config.changes import NEEDS_RESTART
from proxy.config.declaration import Settings
from proxy.config.load import Loaded
from proxy.config.registry import GROUPS, OF_A_PROVIDER, Setting, declared, of_a_provider
from proxy.config.wording import number, plain


def show(loaded: Loaded) -> str:
    """The effective settings as TOML, each with its origin; of a secret only whether it is set."""
    lines: list[str] = []
    group = ""
    for setting in declared().values():
        if setting.group != group:
            group = setting.group
            lines += ["", f"[{group}]"]
        value = _value(loaded.settings, setting)
        if setting.kind == "secret":
            text = f"# {setting.attribute}: {value}"
        elif value is None or value == {}:
            text = f"# {setting.attribute}: not set"
        else:
            key = setting.key.removeprefix(f"{group}.") if group else setting.key
            text = f"{key} = {toml_value(str(value) if setting.kind == 'url' else value)}"
        lines.append(f"{text}  # {loaded.origins[setting.key]}")
    for name, one in loaded.settings.providers.items():
        lines += ["", f"[providers.{name}]"]
        for setting in of_a_provider().values():
            holder = one if setting.key not in OF_A_PROVIDER else one.settings
            value = getattr(holder, setting.attribute)
            if setting.kind == "secret":
                lines.append(f"# {setting.attribute}: {value}")
            elif value not in (None, (), "", {}):
                lines.append(f"{setting.key} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a configuration file."""
    properties: dict[str, Any] = {}
    for setting in declared().values():
        into = properties
        if setting.group:
            table = properties.setdefault(
                setting.group,
                {
                    "type": "object",
                    "description": _about(setting.group),
                    "additionalProperties": False,
                    "properties": {},
                },
            )
            into = table["properties"]
        name = setting.key.rpartition(".")[2]
        into[name] = _property(setting)
        if setting.has_file:
            description = f"Path of a file that holds {setting.key}."
            into[f"{name}_file"] = {"type": "string", "description": description}
    inner: dict[str, Any] = {}
    for setting in of_a_provider().values():
        inner[setting.key] = _property(setting)
        if setting.has_file:
            inner[f"{setting.key}_file"] = {
                "type": "string",
                "description": f"Path of its file: {setting.key}.",
            }
    properties["providers"] = {
        "type": "object",
        "description": "Several providers side by side, by name.",
        "additionalProperties": {"type": "object", "additionalProperties": False, "properties": inner},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Nightporter's configuration file",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def page() -> str:
    """The reference page, in Markdown."""
    return "\n".join(_page()) + "\n"


def listing() -> str:
    """All settings for `--help`, two lines each."""
    lines = ["settings (key, variable, default):"]
    for setting in declared().values():
        lines.append(f"  {setting.key}  {setting.variable}  {_default(setting) or '-'}")
        lines.append(f"      {setting.help}")
    return "\n".join(lines) + "\n"


def _page() -> Iterator[str]:
    yield "# Configuration reference"
    yield ""
    yield "<!-- Made by `make docs` from proxy/config/declaration.py: change it there. -->"
    yield ""
    restart = ", ".join(f"`{key}`" for key in sorted(NEEDS_RESTART))
    yield from _INTRODUCTION.strip().replace("{restart}", restart).splitlines()
    yield ""
    yield "## Settings"
    yield ""
    yield from _table([setting for setting in declared().values() if not setting.group])
    for group in GROUPS:
        yield ""
        yield f"## `[{group}]`"
        yield ""
        yield _about(group)
        yield ""
        yield from _table([setting for setting in declared().values() if setting.group == group])
    yield from _several()


def _several() -> Iterator[str]:
    yield ""
    yield "## `[providers.NAME]`"
    yield ""
    yield from _PROVIDERS.strip().splitlines()
    yield ""
    yield "| key | type | meaning |"
    yield "|---|---|---|"
    for setting in of_a_provider().values():
        text = setting.help if setting.key not in OF_A_PROVIDER else "As above, of this provider."
        examples = ", ".join(f"`{plain(example)}`" for example in setting.meta.examples or ())
        text += f" E.g. {examples}" if examples and setting.key not in OF_A_PROVIDER else ""
        file = f", `{setting.key}_file`" if setting.has_file else ""
        yield f"| `{setting.key}`{file} | {_type(setting)} | {text} |".replace("\\|", "|")


def _table(settings: list[Setting]) -> Iterator[str]:
    yield "| key, variable | type | default | meaning |"
    yield "|---|---|---|---|"
    for setting in settings:
        name = setting.key.rpartition(".")[2]
        file = f", `{setting.variable}_FILE`" if setting.has_file else ""
        default = f"`{_default(setting)}`" if _default(setting) else "–"
        examples = ", ".join(f"`{plain(example)}`" for example in setting.meta.examples or ())
        text = setting.help + (f" E.g. {examples}" if examples else "")
        cells = (f"`{name}`<br>`{setting.variable}`{file}", _type(setting), default, text)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(setting: Setting) -> str:
    meta = setting.meta
    limits = f", {number(meta.ge)} to {number(meta.le)}" if meta.ge is not None else ""
    match setting.kind:
        case "choice":
            return ", ".join(f"`{choice}`" for choice in setting.choices)
        case "whole":
            return (setting.unit or "whole number") + limits
        case "number":
            return (setting.unit or "number") + limits
        case "flag":
            return "`true`, `false`"
        case "list":
            return "list"
        case "table":
            return "table"
        case "secret":
            return "secret"
        case _:
            return "text"


def _default(setting: Setting) -> str:
    match setting.kind:
        case "secret" | "url":
            return ""
        case "number" | "whole":
            return number(setting.default)
        case "flag":
            return str(setting.default).lower()
        case "list" | "table":
            return ""
        case _:
            return setting.default


def _property(setting: Setting) -> dict[str, Any]:
    found: dict[str, Any] = {"description": setting.help}
    match setting.kind:
        case "flag":
            found["type"] = "boolean"
        case "whole" | "number":
            found["type"] = "integer" if setting.kind == "whole" else "number"
            found["minimum"], found["maximum"] = setting.meta.ge, setting.meta.le
            if setting.unit:
                found["x-unit"] = setting.unit
        case "choice":
            found["enum"] = list(setting.choices)
        case "list":
            found["anyOf"] = [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]
        case "table":
            found |= {"type": "object", "additionalProperties": {"type": "string"}}
        case _:
            found["type"] = "string"
    if setting.has_file:
        found["writeOnly"] = True
    elif setting.default not in ("", (), None, {}):
        found["default"] = setting.default
    if setting.meta.examples:
        found["examples"] = list(setting.meta.examples)
    return found


def _about(group: str) -> str:
    return (GROUPS[group].__doc__ or "").strip()


def _value(settings: Settings, setting: Setting) -> Any:
    return getattr(getattr(settings, setting.group) if setting.group else settings, setting.attribute)


def toml_value(value: Any) -> str:
    """A value as TOML; JSON's strings are TOML's basic strings, but for DEL (TOML 1.0)."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(item) for item in cast(tuple[str, ...], value)) + "]"
    if isinstance(value, dict):
        pairs = cast(dict[str, str], value).items()
        return "{ " + ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in pairs) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_PROVIDERS = """
Several providers at once, each in a table of its own; `issuer`, `provider`, `client_id`, `client_secret` and
`client_key` then stand in the tables only, what else a table leaves out is as set above. A table that
is named like a profile (`[providers.google]`) needs no `provider`. In the environment:
`NIGHTPORTER_PROVIDERS_GOOGLE_CLIENT_ID`, `…_CLIENT_SECRET_FILE`.

People choose on a page with a button each, unless `?provider=NAME`, the host or the path chooses for
them. Register `https://app.example.com/oauth2/callback/NAME` at each provider. The app is told
`NAME:sub` as `X-Forwarded-User`, because two providers may use the same `sub`; groups and addresses
are passed as each provider says them. A table that is removed signs its people in again.
"""

_INTRODUCTION = """
A setting is read from four places; the first that has it wins:

1. `--set key=value` on the command line (`--set refresh.wait_s=5`); secrets are not taken there,
2. the environment: `NIGHTPORTER_` and the key in capitals, dots as `_`,
3. a TOML file, named by `--config FILE` or `NIGHTPORTER_CONFIG`,
4. the default.

Required are `issuer` or `provider` (or both, where the provider's issuers differ by customer),
`client_id`, `client_secret` or another way for the client to prove itself, `upstream`, `public_url`
and `store`; `cookie_keys` too, except on `sqlite:` (one is made and kept in `<database>.keys`, mode
0600) and `memory:` (random at each start).

- **Secrets** come from a file as well: `NIGHTPORTER_CLIENT_SECRET_FILE`, in TOML
  `client_secret_file`. Blanks and line ends around the file's content are cut off. Giving both the
  value and the file is refused.
- **Lists** are TOML arrays; in a variable (or a TOML text) words separated by spaces or commas.
- **Tables** are TOML tables; in a variable a JSON object.
- **Units** are in the names: `_s` seconds (fractions allowed), `_bytes` bytes, `_share` a part of
  one.
- An **empty variable** counts as not set. A variable that begins with `NIGHTPORTER_` and is none of
  these is refused, except the ones that Kubernetes makes for a Service of that name
  (`NIGHTPORTER_SERVICE_HOST`, `NIGHTPORTER_PORT_80_TCP`, …).

`nightporter check` reads the configuration and prints every problem at once, with the key, what was
found and the remedy; the exit status is 2. `nightporter config show` prints what is in force and
where it came from, and never a secret. `nightporter config schema` prints a JSON schema for
editors.

A change of one of its files (or SIGHUP) makes a running process read the configuration again. No
connection is dropped and no session ends. What cannot be used changes nothing and is logged
(`configuration_refused`). These need a restart, which the log says (`restart_needed`): {restart}.
"""
