"""oauth2-proxy with sessions in Redis."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.machine import installed, version_of
from bench.stage import SECRET, Stage, listening
from tests.scenarios.house import free_port


def redis(stage: Stage) -> Contestant:
    program, port = installed("oauth2-proxy"), free_port()
    redis_port, store = stage.redis()
    process = stage.run(
        [
            program,
            "--provider=oidc",
            f"--oidc-issuer-url={stage.op.issuer}",
            f"--client-id={stage.op.client_id}",
            f"--client-secret={stage.op.client_secret}",
            f"--redirect-url=http://127.0.0.1:{port}/oauth2/callback",
            f"--cookie-secret={SECRET}",
            "--cookie-secure=false",
            "--email-domain=*",
            f"--upstream=http://127.0.0.1:{stage.app_port}/",
            f"--http-address=127.0.0.1:{port}",
            "--session-store-type=redis",
            f"--redis-connection-url=redis://127.0.0.1:{redis_port}",
            "--skip-provider-button=true",
            "--scope=openid profile email offline_access",
            "--code-challenge-method=S256",
            "--request-logging=true",
        ],
        env={"GOMAXPROCS": "1"},
    )
    listening(port)
    version = version_of([program, "--version"])
    return Contestant("oauth2-proxy, Redis", port, [process], store, version, signs_in=True)
