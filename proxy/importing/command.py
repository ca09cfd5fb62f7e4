"""`nightporter import oauth2-proxy`: our TOML to stdout, what there is to say to stderr."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from proxy.errors import ConfigError, Problem
from proxy.importing.arguments import from_arguments, from_environment, variables
from proxy.importing.draft import Draft, Weight
from proxy.importing.files import from_file
from proxy.importing.given import Given
from proxy.importing.translation import translate
from proxy.importing.trial import tried
from proxy.importing.writing import report, toml

EXIT_PROBLEMS = 1
EXIT_UNREADABLE = 2


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0 if Nightporter would start with the result and nobody has to decide anything, 1 if not, 2 if the
        source cannot be read.
    """
    options = _parser().parse_intermixed_args(argv)
    if not (options.files or options.env or options.env_file or options.args is not None):
        _parser().error("name a file, --env, --env-file or --args")
    try:
        draft = translate(_given(options))
    except ConfigError as error:
        print(f"nightporter: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    text, said, good = written(draft)
    sys.stdout.write(text)
    sys.stderr.write(said)
    return 0 if good else EXIT_PROBLEMS


def written(draft: Draft) -> tuple[str, str, bool]:
    """The file, what there is to say about it, and whether it may be used as it is."""
    problems, waits_for = tried(toml(draft, [], []), draft)
    said = "\n".join(report(draft, problems, waits_for)).lstrip("\n")
    good = not problems and not any(note.weight is Weight.DECIDE for note in draft.notes)
    return toml(draft, problems, waits_for), said + "\n" if said else "", good


def _given(options: argparse.Namespace) -> Given:
    """All sources, the weakest first: files, variables, arguments."""
    arguments = from_arguments(shlex.split(options.args)) if options.args is not None else Given()
    given = Given()
    for path in [*_named(arguments), *options.files]:
        given.over(from_file(path))
    if options.env:
        given.over(from_environment(os.environ))
    if options.env_file:
        try:
            text = Path(options.env_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError([Problem(options.env_file, "unreadable", "name a file of variables")]) from None
        given.over(from_environment(variables(text)))
    given.over(arguments)
    return given


def _named(arguments: Given) -> list[str]:
    """Configuration files that the arguments name and that are here."""
    paths = [arguments.text("config"), arguments.text("alpha-config")]
    for path in paths:
        if path and not os.path.exists(path):
            arguments.troubles.append((path, "named by the arguments, but not here: name the file yourself"))
    return [path for path in paths if path and os.path.exists(path)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nightporter import",
        description="Read another proxy's configuration and print Nightporter's. Later sources win: files in "
        "their order, variables, arguments.",
    )
    parser.add_argument("source", choices=("oauth2-proxy",), help="whose configuration it is")
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="oauth2-proxy.cfg, alpha YAML, a Kubernetes manifest, or a list of arguments",
    )
    parser.add_argument("--env", action="store_true", help="read OAUTH2_PROXY_… of this environment")
    parser.add_argument("--env-file", metavar="FILE", default="", help="read OAUTH2_PROXY_… lines of a file")
    parser.add_argument("--args", metavar="ARGUMENTS", help="its command line, as one text")
    return parser
