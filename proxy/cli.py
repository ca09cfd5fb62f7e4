"""The command line. Imports little: `serve` loads what it needs, help loads the rest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.config import Settings

EXIT_CONFIG = 2


class _Parser(argparse.ArgumentParser):
    """An argument parser whose help ends with the settings, made only when somebody asks."""

    lists_settings = False

    def format_help(self) -> str:
        if not self.lists_settings:
            return super().format_help()
        from proxy.config.reference import listing

        return super().format_help() + "\n" + listing()


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
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
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
        from proxy.service import serve

        return serve(given)
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nightporter", description="A reverse-proxy authentication sidecar that keeps people signed in."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the proxy")
    commands.add_parser("demo", help="run it with a small provider and a sample app, to look at")
    check = commands.add_parser(
        "check", help="read the configuration, name every problem; --live asks the world"
    )
    check.add_argument(
        "--live", action="store_true", help="ask the provider, the store and the app (the doctor)"
    )
    check.add_argument("--login", action="store_true", help="with one sign-in of yours, on top of --live")
    check.add_argument(
        "--aggressive",
        action="store_true",
        help="with --login: present a used refresh token again; may end that sign-in's grant",
    )
    check.add_argument(
        "--grace-wait-s",
        type=float,
        default=35.0,
        metavar="S",
        help="with --aggressive: how long after its use it is presented a second time (0 = not)",
    )
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    config = commands.add_parser("config", help="print the configuration, its schema or its reference")
    config.add_argument("what", choices=("show", "schema", "docs"))
    sessions = commands.add_parser("sessions", help="sign everybody or one person out, count sessions")
    on_sessions = _sessions(sessions)
    commands.add_parser("import", help="print this configuration for one of another proxy (oauth2-proxy)")
    commands.add_parser("keygen", help="print a new cookie key")
    commands.add_parser("version", help="print the version")
    for command in (serve, check, config, *on_sessions):
        command.lists_settings = True
        command.add_argument(
            "--config", metavar="FILE", default="", help="TOML file (otherwise NIGHTPORTER_CONFIG names it)"
        )
        command.add_argument(
            "--set",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="override a setting; may be repeated",
        )
    return parser


def _sessions(parser: _Parser) -> list[_Parser]:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    everybody = what.add_parser("end-all", help="sign everybody out, everywhere, within a second")
    user = what.add_parser("end-user", help="sign one person out of all their sessions")
    user.add_argument("issuer", metavar="ISS", help="issuer, as the ID token names it")
    user.add_argument("subject", metavar="SUB", help="subject (`sub`), not the e-mail address")
    stats = what.add_parser("stats", help="count sessions, with and without refresh token")
    return [everybody, user, stats]
