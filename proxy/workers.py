"""Several processes that share the listening sockets, and the one that keeps them running.

The supervisor binds each socket once and forks; every worker accepts from the same queue. (With
SO_REUSEPORT each process would have a queue of its own, and what waits in one would be reset
when its process ends.) The supervisor serves nothing. It starts a worker again that died, passes
signals on, and on SIGUSR1 replaces the workers one by one: a new one first, and only when that is
ready the old one drains. Nobody who connects meanwhile is refused: the queue is always there. A new
one that does not become ready replaces nobody: the old ones go on, whatever is wrong with it.

Workers hold the reading end of a pipe that only the supervisor could write to. If it dies without a
word (SIGKILL, out of memory), the pipe ends, and they drain and stop: nobody would replace them,
reload them or stop them any more, and whoever takes the supervisor's place needs the address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable

from msgspec import Struct, field

from proxy.config import Settings
from proxy.errors import ConfigError
from proxy.shell.listening import bound

log = logging.getLogger("nightporter")

BACKLOG = 1_024
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
_LOOK_S = 0.5
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_BROKEN_CONFIGURATION = 2


class Share(Struct, frozen=True):
    """What a worker is given instead of binding for itself.

    Attributes:
        sockets: bound, by the name of the setting that says where.
        number: of this worker, from 0.
        crew_dir: where each worker answers the others for the metrics: ``<number>.sock``.
        supervisor_fd: reads as ended once the supervisor is gone.
        tell_ready: called once, when it serves.
    """

    sockets: dict[str, socket.socket]
    number: int
    crew_dir: str
    supervisor_fd: int
    tell_ready: Callable[[], None]


class _Worker(Struct):
    number: int
    pid: int
    ready_fd: int
    ready: bool = False
    leaving: bool = False


class Supervisor(Struct):
    """See the module's docstring.

    Args:
        settings: the configuration.
        work: runs a worker to its end in the forked process; answers its exit status.
    """

    settings: Settings
    work: Callable[[Share], int]
    _sockets: dict[str, socket.socket] = field(default_factory=dict[str, socket.socket])
    _workers: list[_Worker] = field(default_factory=list[_Worker])
    _crew_dir: str = ""
    _alive: tuple[int, int] = (-1, -1)
    _to_replace: list[_Worker] = field(default_factory=list[_Worker])
    _start_at: float = 0.0
    _pause_s: float = _PAUSE_S
    _served: bool = False
    _stopping: bool = False
    _status: int = 0

    def run(self) -> int:
        """Keep the workers running until SIGTERM or SIGINT.

        Returns:
            The exit status: 0 after an orderly end, else a worker's that could not start at all.

        Raises:
            ConfigError: an address cannot be listened on.
        """
        self._bind()
        self._crew_dir = tempfile.mkdtemp(prefix="nightporter-")
        self._alive = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for number in range(self.settings.workers):
                self._fork(number)
            while self._workers or not self._stopping:
                found = signal.sigtimedwait(_SIGNALS, _LOOK_S)
                if found is not None:
                    self._on_signal(found.si_signo)
                self._reap()
                self._hear()
                self._go_on()
            return self._status
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            shutil.rmtree(self._crew_dir, ignore_errors=True)

    def _bind(self) -> None:
        settings = self.settings
        addresses = {"listen": settings.listen_address, "operations_listen": settings.operations_address}
        if settings.forward_auth.listen:
            addresses["forward_auth.listen"] = settings.forward_auth_address
        if settings.admin_listen:
            addresses["admin_listen"] = settings.admin_address
        for name, address in addresses.items():
            private = name == "admin_listen"
            sock = bound(name, host=address.host, port=address.port, path=address.path, private=private)
            sock.listen(BACKLOG)
            self._sockets[name] = sock

    def _fork(self, number: int) -> None:
        ready_fd, tell_fd = os.pipe()
        pid = os.fork()
        if pid:
            os.close(tell_fd)
            os.set_blocking(ready_fd, False)
            self._workers.append(_Worker(number, pid, ready_fd))
            return
        status = 1
        supervisor = os.getppid()
        try:
            os.close(ready_fd)
            os.close(self._alive[1])
            for worker in self._workers:
                os.close(worker.ready_fd)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

            def tell() -> None:
                with contextlib.suppress(BrokenPipeError):  # then `supervisor_fd` has ended, too
                    os.write(tell_fd, b"!")

            status = self.work(Share(self._sockets, number, self._crew_dir, self._alive[0], tell))
        except ConfigError as error:
            for problem in error.problems:
                log.error("cannot_start", extra={"detail": str(problem)})
            status = _BROKEN_CONFIGURATION
        except BaseException:
            log.exception("worker_failed")
        finally:
            if os.getppid() != supervisor:  # nobody else is left to tidy up
                shutil.rmtree(self._crew_dir, ignore_errors=True)
            logging.shutdown()
            os._exit(status)

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._stopping = True
                self._to_replace.clear()
                self._send(signal.SIGTERM)
            case signal.SIGHUP:
                self._send(signal.SIGHUP)
            case signal.SIGUSR1 if not self._stopping and not self._to_replace:
                log.info("replacing_workers")
                self._to_replace = [worker for worker in self._workers if not worker.leaving]
            case _:
                pass

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            os.kill(worker.pid, number)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            worker = next((each for each in self._workers if each.pid == pid), None)
            if worker is None:
                continue
            self._workers.remove(worker)
            os.close(worker.ready_fd)
            code = os.waitstatus_to_exitcode(status)
            if worker in self._to_replace:
                self._to_replace.remove(worker)
            if worker.leaving or self._stopping:
                continue
            log.error("worker_died", extra={"worker": worker.number, "status": code})
            if not worker.ready and any(each.number == worker.number for each in self._to_replace):
                log.error("not_replaced", extra={"workers": [each.number for each in self._to_replace]})
                self._to_replace.clear()
                continue
            if code == _BROKEN_CONFIGURATION and not self._served:  # else others serve, by the one before
                self._stopping, self._status = True, code
                self._send(signal.SIGTERM)
                continue
            self._start_at = time.monotonic() + self._pause_s
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _hear(self) -> None:
        for worker in self._workers:
            if worker.ready:
                continue
            try:
                said = os.read(worker.ready_fd, 1)
            except BlockingIOError:
                continue
            if said:
                worker.ready = self._served = True
                self._pause_s = _PAUSE_S

    def _go_on(self) -> None:
        """Replace the next one; start the missing ones."""
        if self._stopping:
            return
        staying = [worker for worker in self._workers if not worker.leaving]
        if self._to_replace:
            old = self._to_replace[0]
            new = [worker for worker in staying if worker.number == old.number and worker is not old]
            if not new:
                self._fork(old.number)
            elif new[0].ready:
                self._to_replace.pop(0)
                old.leaving = True
                os.kill(old.pid, signal.SIGTERM)
            return
        if time.monotonic() >= self._start_at:
            there = {worker.number for worker in staying}
            for number in range(self.settings.workers):
                if number not in there:
                    self._fork(number)
