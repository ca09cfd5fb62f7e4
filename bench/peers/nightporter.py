"""Nightporter: as a sidecar, and asked by nginx."""

from __future__ import annotations

import sys

from bench.contestant import Contestant
from bench.stage import ROOT, Stage, listening
from tests.scenarios.house import SCOPES, free_port

_NGINX = ROOT / "config" / "forward-auth" / "nginx.conf"
_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
# `make bench` makes it; by default whoever measures is measured.
_BUILT = ROOT / "build" / "bench-python" / "bin" / "python"
PYTHON = str(_BUILT) if _BUILT.exists() else sys.executable
SERVE = [PYTHON, "-m", "proxy", "serve"]


def settings(stage: Stage, port: int, *, store: str, public: int = 0) -> dict[str, str]:
    """What a process of ours is told.

    Args:
        public: where browsers come, if not to `port`.
    """
    return {
        "PYTHONPATH": str(ROOT),
        "NIGHTPORTER_ISSUER": stage.op.issuer,
        "NIGHTPORTER_CLIENT_ID": stage.op.client_id,
        "NIGHTPORTER_CLIENT_SECRET": stage.op.client_secret,
        "NIGHTPORTER_SCOPES": SCOPES,
        "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{stage.app_port}",
        "NIGHTPORTER_PUBLIC_URL": f"http://127.0.0.1:{public or port}",
        "NIGHTPORTER_LISTEN": f"127.0.0.1:{port}",
        "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{free_port()}",
        "NIGHTPORTER_COOKIE_KEYS": _KEY,
        "NIGHTPORTER_STORE": store,
        "NIGHTPORTER_LIMITS_MAX_CONNECTIONS": "20000",
    }


def sidecar(
    stage: Stage, *, store: str = "", more: dict[str, str] | None = None, serve: list[str] = SERVE
) -> Contestant:
    """In front of the app, with sessions in Redis.

    Args:
        store: another one than a Redis of its own.
        more: further settings.
        serve: the command.
    """
    port, redis = free_port(), None
    if not store:
        redis_port, redis = stage.redis()
        store = f"redis://127.0.0.1:{redis_port}/0"
    env = settings(stage, port, store=store) | (more or {})
    process = stage.run(serve, env=env, cwd=ROOT)
    listening(port)
    return Contestant("Nightporter", port, [process], redis, "this tree", signs_in=True)


def behind_nginx(stage: Stage) -> Contestant:
    """nginx auth_request → Nightporter on a unix socket, with the shipped configuration; both together."""
    engine, pages, answers = free_port(), free_port(), f"unix:{stage.home}/np-auth-{free_port()}.sock"
    redis_port, redis = stage.redis()
    env = settings(stage, pages, store=f"redis://127.0.0.1:{redis_port}/0", public=engine)
    env |= {"NIGHTPORTER_FORWARD_AUTH_LISTEN": answers, "NIGHTPORTER_FORWARD_AUTH_ENGINE": "nginx"}
    process = stage.run(SERVE, env=env, cwd=ROOT)
    listening(pages)
    text = _NGINX.read_text()
    inner = text[text.index("http {") + 6 : text.rindex("}")]
    for shipped, put in (
        ("127.0.0.1:8000", f"127.0.0.1:{engine} backlog=1024"),
        ("127.0.0.1:8080", f"127.0.0.1:{pages}"),
        ("127.0.0.1:8082", answers),
        ("127.0.0.1:9000", f"127.0.0.1:{stage.app_port}"),
    ):
        inner = inner.replace(shipped, put)
    worker = stage.nginx(engine, inner)
    return Contestant(
        "nginx auth_request → Nightporter", engine, [process, worker], redis, "this tree", signs_in=True
    )
