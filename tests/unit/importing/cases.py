"""The configurations of oauth2-proxy that are imported in the tests, each with what it becomes.

`python -m tests.unit.importing.cases` writes the expected files anew; read the difference.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from proxy.importing.command import main

HERE = Path(__file__).parents[2] / "data/oauth2-proxy"


@dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes:
        sources: of the command line, relative to the data.
        status: expected exit status.
    """

    name: str
    sources: tuple[str, ...]
    status: int = 0

    @property
    def arguments(self) -> list[str]:
        return ["oauth2-proxy", *(word if word[:2] == "--" else str(HERE / word) for word in self.sources)]

    @property
    def expected(self) -> Path:
        return HERE / f"{self.name}.toml"


CASES = (
    Case("google-domain", ("google-domain.cfg",)),
    Case("azure", ("azure.cfg",)),
    Case("github-team", ("--env-file", "github-team.env")),
    Case("keycloak-roles", ("keycloak-roles.cfg",)),
    Case("gitlab", ("gitlab.cfg",)),
    Case("oidc-pkce", ("oidc-pkce.args",), 1),  # address and group: somebody must decide
    Case("redis-sentinel", ("redis-sentinel.cfg",)),
    Case("redis-cluster", ("--env-file", "redis-cluster.env")),
    Case("redis-single", ("redis-single.args",)),
    Case("alpha", ("alpha.cfg", "alpha.yaml"), 1),  # a parameter that people may choose
    Case("kubernetes", ("kubernetes.yaml",)),
    Case("nginx-auth-request", ("nginx-auth-request.cfg",)),
    Case("tls", ("tls.cfg",), 1),  # a rule for subdomains, and what is not understood
    Case("compose", ("compose.yaml",), 1),  # no public address
    Case("static-upstreams", ("static-upstreams.cfg",), 1),  # a group restriction is gone
    Case("skip-auth", ("skip-auth.cfg",)),
)


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command: exit status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 2
    return status, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    for case in CASES:
        case.expected.write_text(run(*case.arguments)[1])
