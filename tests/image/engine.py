"""A container engine for the tests: the one that runs, or one of our own, ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 60.0


class EngineFailed(Exception):
    """No engine can be had; the message says why."""


def client() -> str:
    """A client that can build: a newer one without its buildx plug-in cannot."""
    named = os.environ.get("DOCKER")
    candidates = [named] if named else ["docker", "/usr/bin/docker"]
    for candidate in filter(shutil.which, candidates):
        version = _say([candidate, "--version"]).stdout.removeprefix("Docker version ")
        old = version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < 23
        if old or _say([candidate, "buildx", "version"]).returncode == 0:
            return candidate
    raise EngineFailed(
        f"none of {candidates} is a client that builds: scripts/install-test-tools installs one"
    )


def _say(
    command: Sequence[str], environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
    )


class Engine:
    """Commands to one engine.

    Args:
        home: where an engine of our own keeps its images and its log.
    """

    def __init__(self, home: Path) -> None:
        self.client = client()
        self.environ = {"DOCKER": self.client, "DOCKER_BUILDKIT": "1"}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._before: list[tuple[str, list[str]]] = []
        self._forwarding = ""
        self._home = home
        if _say([self.client, "info", "--format", "{{.ServerVersion}}"]).returncode:
            self._start(home)

    def _start(self, home: Path) -> None:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            raise EngineFailed(
                "no container engine answers, and none can be started here (that takes root and "
                "dockerd): start one, or set DOCKER_HOST"
            )
        self._remember_forwarding()
        home.mkdir(parents=True, exist_ok=True)
        sock = home / "docker.sock"
        log = (home / "dockerd.log").open("wb")
        self._daemon = subprocess.Popen(
            [
                *("dockerd", "--data-root", str(home / "data"), "--exec-root", str(home / "exec")),
                *("--host", f"unix://{sock}", "--pidfile", str(home / "pid")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.environ["DOCKER_HOST"] = f"unix://{sock}"
        end = time.monotonic() + START_S
        while self.ask("info", "--format", "{{.ServerVersion}}").returncode:
            if self._daemon.poll() is not None or time.monotonic() > end:
                self.close()
                tail = (home / "dockerd.log").read_text(errors="replace").splitlines()[-15:]
                raise EngineFailed("dockerd did not start:\n" + "\n".join(tail))
            threading.Event().wait(0.1)

    def _remember_forwarding(self) -> None:
        """dockerd turns IP forwarding on and its policy to DROP, and leaves both behind."""
        for tool in filter(shutil.which, ("iptables", "ip6tables")):
            policy = _say([tool, "-S", "FORWARD"]).stdout.split("\n", 1)[0].split()
            if policy[:2] == ["-P", "FORWARD"]:
                self._before.append((tool, policy))
        self._forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the client, whatever comes of it."""
        return _say([self.client, *arguments], self.environ)

    def run(self, *arguments: str) -> str:
        """Run a command of the client; what it said.

        Raises:
            EngineFailed: it failed.
        """
        done = self.ask(*arguments)
        if done.returncode:
            raise EngineFailed(f"{' '.join(arguments[:3])} …: {done.stderr.strip()[-3000:]}")
        return done.stdout.strip()

    def export(self, container: str) -> bytes:
        """A container's files as a tar archive."""
        command = [self.client, "export", container]
        return subprocess.run(
            command, env={**os.environ, **self.environ}, capture_output=True, check=True
        ).stdout

    def script(self, name: str, *arguments: str) -> None:
        """Run one of scripts/ against this engine."""
        done = _say([str(ROOT / "scripts" / name), *arguments], self.environ)
        if done.returncode:
            raise EngineFailed(f"{name}: {done.stdout[-1000:]}{done.stderr[-3000:]}")

    def close(self) -> None:
        """End the engine, if it is ours, and leave the machine as it was."""
        if self._daemon is None:
            return
        self._daemon.send_signal(signal.SIGTERM)
        try:
            self._daemon.wait(60)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        # Its network namespace stays mounted, and `make clean` could not remove the directory.
        _say(["umount", str(self._home / "exec/netns/default")])
        for tool, policy in self._before:
            _say([tool, *policy])
        if self._forwarding:
            Path("/proc/sys/net/ipv4/ip_forward").write_text(self._forwarding)
        self._daemon = None
