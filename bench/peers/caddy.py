"""Caddy as a plain proxy."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.machine import installed, version_of
from bench.stage import Stage, listening
from tests.scenarios.house import free_port


def plain(stage: Stage) -> Contestant:
    program, port = installed("caddy"), free_port()
    config = stage.home / "Caddyfile"
    config.write_text(
        "{\n admin off\n auto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\n reverse_proxy 127.0.0.1:{stage.app_port}\n}}\n"
    )
    process = stage.run(
        [program, "run", "--config", str(config), "--adapter", "caddyfile"],
        env={"GOMAXPROCS": "1", "HOME": str(stage.home)},
    )
    listening(port)
    return Contestant("Caddy, plain proxy", port, [process], version=version_of([program, "version"]))
