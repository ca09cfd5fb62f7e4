"""nginx as a plain proxy: the floor that everything is compared with."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.machine import installed, version_of
from bench.stage import Stage
from tests.scenarios.house import free_port

_KEEP = "proxy_http_version 1.1; proxy_set_header Connection '';"
_UPGRADE = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
)


def plain(stage: Stage) -> Contestant:
    """As it comes: answers are buffered."""
    return _proxy(stage, "nginx, plain proxy", "")


def unbuffered(stage: Stage) -> Contestant:
    """Answers pass as they come, which is what Nightporter does."""
    return _proxy(stage, "nginx, plain, unbuffered", "proxy_buffering off;")


def _proxy(stage: Stage, name: str, buffering: str) -> Contestant:
    port = free_port()
    process = stage.nginx(
        port,
        f"upstream app {{ server 127.0.0.1:{stage.app_port}; keepalive 64; }}"
        f"server {{ listen 127.0.0.1:{port} backlog=1024;"
        f"location / {{ proxy_pass http://app; {buffering} {_KEEP} }}"
        f"location /ws {{ proxy_pass http://app; {_UPGRADE} }} }}",
    )
    return Contestant(name, port, [process], version=version_of([installed("nginx"), "-v"]))
