"""Traefik as a plain proxy."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.machine import installed, version_of
from bench.stage import Stage, listening
from tests.scenarios.house import free_port


def plain(stage: Stage) -> Contestant:
    program, port = installed("traefik"), free_port()
    dynamic = stage.home / "traefik-dynamic.yml"
    dynamic.write_text(
        f"""
http:
  routers:
    app: {{ rule: "PathPrefix(`/`)", service: app }}
  services:
    app: {{ loadBalancer: {{ servers: [{{ url: "http://127.0.0.1:{stage.app_port}" }}] }} }}
"""
    )
    process = stage.run(
        [
            program,
            f"--entryPoints.web.address=127.0.0.1:{port}",
            f"--providers.file.filename={dynamic}",
            "--global.checkNewVersion=false",
            "--global.sendAnonymousUsage=false",
        ],
        env={"GOMAXPROCS": "1"},
    )
    listening(port)
    return Contestant("Traefik, plain proxy", port, [process], version=version_of([program, "version"]))
