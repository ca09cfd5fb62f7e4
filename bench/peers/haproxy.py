"""HAProxy as a plain proxy."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.machine import installed, version_of
from bench.stage import Stage, listening
from tests.scenarios.house import free_port


def plain(stage: Stage) -> Contestant:
    program, port = installed("haproxy"), free_port()
    config = stage.home / "haproxy.cfg"
    config.write_text(
        f"""
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
  http-reuse always
frontend web
  bind 127.0.0.1:{port}
  default_backend app
backend app
  server app 127.0.0.1:{stage.app_port}
"""
    )
    process = stage.run([program, "-db", "-f", str(config)])
    listening(port)
    return Contestant("HAProxy, plain proxy", port, [process], version=version_of([program, "-v"]))
