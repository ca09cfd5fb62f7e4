"""The command line. Imports little: `serve` loads what it needs, help loads the rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from proxy.config import Settings

EXIT_CONFIG = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 2 for a configuration or a command line that cannot be used.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"]:
        from proxy.demo.run import main as demo

        return demo(arguments[1:])  # its arguments are its own
    if arguments[:1] == ["import"]:
        from proxy.importing.command import main as take_over

        return take_over(arguments[1:])
    try:
        if arguments == ["serve"]:
            return _serve()
        from proxy.command_line import parser  # 4 ms and 0.4 MiB, which the usual start does without

        return _run(parser().parse_args(arguments))
    except ConfigError as error:
        print(f"nightporter: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except BrokenPipeError:  # `nightporter config docs | head`
        sys.stdout = None
        return 0


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "version":
            from importlib.metadata import version

            print(f"nightporter {version('nightporter')}")
            return 0
        case "keygen":
            from proxy.config.keys import new_key

            print(new_key())
            return 0
        case "config" if options.what in ("schema", "docs"):
            return _describe(options.what)
        case _:
            pass
    from proxy.config import Loaded, read

    def given() -> Loaded:
        return read(file=options.config, overrides=options.set)

    if options.command == "serve":
        return _serve(options.config, options.set)
    loaded = given()
    if options.command == "check" and (options.live or options.login):
        from proxy.doctor.run import check

        return check(
            loaded,
            login=options.login,
            aggressive=options.aggressive,
            grace_wait_s=options.grace_wait_s,
            as_json=options.json,
        )
    if options.command == "sessions":
        from proxy.operator import run

        return run(loaded.settings, options)
    if options.command == "check":
        for warning in (*loaded.warnings, *_of_the_store(loaded.settings)):
            print(f"warning: {warning}")
        print("OK: the configuration can be used.")
        return 0
    from proxy.config.reference import show

    print(show(loaded), end="")
    return 0


def _serve(file: str = "", overrides: Sequence[str] = ()) -> int:
    from proxy.config import read
    from proxy.service import serve

    return serve(lambda: read(file=file, overrides=overrides))


def _of_the_store(settings: Settings) -> list[str]:
    """What deserves a warning about Redis as it is now; nothing for other stores."""
    from proxy.config.redis_address import is_redis

    if not is_redis(settings.store.reveal()):
        return []
    from proxy.doctor.redis import warnings

    return warnings(settings)


def _describe(what: str) -> int:
    from proxy.config import reference

    if what == "docs":
        print(reference.page(), end="")
        return 0
    import json

    print(json.dumps(reference.schema(), indent=2, ensure_ascii=False))
    return 0
