"""oauth2-proxy's command line and environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from proxy.importing.flags import BY_CONFIG, FLAGS
from proxy.importing.given import Elsewhere, Given

PREFIX = "OAUTH2_PROXY_"


def from_arguments(words: Sequence[str], resolve: Callable[[str], str] = str) -> Given:
    """Read a command line: ``--flag=value``, ``--flag value``, one dash or two.

    A list that is given several times is joined, as pflag does.

    Args:
        resolve: fills references into a value.
    """
    given = Given()
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        flag = FLAGS.get(name)
        if not word.startswith("-"):
            # The program's own name, or a shell's words before it.
            if word.rpartition("/")[2] not in ("oauth2-proxy", "oauth2_proxy"):
                given.troubles.append(("command line", "a word that belongs to no flag"))
            continue
        place = f"--{name}"
        if flag is None:
            given.troubles.append((place, "no flag of oauth2-proxy that is known here"))
            if not equals and waiting and not waiting[0].startswith("-"):
                waiting.pop(0)  # most likely its value
            continue
        if not equals:
            if flag.kind == "flag":
                value = "true"
            elif waiting:
                value = waiting.pop(0)
            else:
                given.troubles.append((place, "no value"))
                continue
        before = given.values.get(name)
        given.put(flag, resolve(value), place)
        if flag.kind == "list" and before is not None:
            given.values[name].value[:0] = before.value
    return given


def from_environment(env: Mapping[str, str]) -> Given:
    """Read the variables that begin with `OAUTH2_PROXY_`."""
    given = Given()
    for name in sorted(env):
        if not name.startswith(PREFIX) or not env[name]:
            continue
        flag = BY_CONFIG.get(name.removeprefix(PREFIX).lower())
        if flag is None:
            # Kubernetes makes such variables for a Service of that name.
            if not name.removeprefix(PREFIX).startswith(("SERVICE_", "PORT")):
                given.troubles.append((name, "no variable of oauth2-proxy that is known here"))
            continue
        given.put(flag, env[name], name)
    return given


def variables(text: str) -> dict[str, str]:
    """The variables of an env file: ``NAME=value`` a line, `#` begins a comment."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip().removeprefix("export ").lstrip()
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[name.strip()] = value
    return found


def elsewhere(where: str) -> str:
    """Stands for a value that is kept elsewhere, e.g. in a Kubernetes Secret."""
    return Elsewhere(where)
