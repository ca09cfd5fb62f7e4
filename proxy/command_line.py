"""What may stand behind `nightporter`, and its help."""

from __future__ import annotations

import argparse


class _Parser(argparse.ArgumentParser):
    """An argument parser whose help ends with the settings, made only when somebody asks."""

    lists_settings = False

    def format_help(self) -> str:
        if not self.lists_settings:
            return super().format_help()
        from proxy.config.reference import listing

        return super().format_help() + "\n" + listing()


def parser() -> argparse.ArgumentParser:
    """Understands every command but those whose arguments are their own."""
    made = _Parser(
        prog="nightporter", description="A reverse-proxy authentication sidecar that keeps people signed in."
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
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
    return made


def _sessions(parser: _Parser) -> list[_Parser]:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    everybody = what.add_parser("end-all", help="sign everybody out, everywhere, within a second")
    user = what.add_parser("end-user", help="sign one person out of all their sessions")
    user.add_argument("issuer", metavar="ISS", help="issuer, as the ID token names it")
    user.add_argument("subject", metavar="SUB", help="subject (`sub`), not the e-mail address")
    stats = what.add_parser("stats", help="count sessions, with and without refresh token")
    return [everybody, user, stats]
