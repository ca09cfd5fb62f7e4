"""How the demo's own servers are run."""

from __future__ import annotations

import argparse
import contextlib

import uvicorn
from starlette.types import ASGIApp


def takes_bind(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where to listen."""
    parser.add_argument(
        "--bind", default="127.0.0.1", metavar="ADDRESS", help="where to listen; in a container 0.0.0.0"
    )


def run(app: ASGIApp, *, bind: str, port: int) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(
        app,
        host=bind,
        port=port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()
