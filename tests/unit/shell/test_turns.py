"""When the engine on our core may finish its turn first."""

from __future__ import annotations

import errno
import os
import threading

from proxy.shell.turns import Turns


class Machine:
    """Counts questions, and schedules."""

    def __init__(self, policy: int = os.SCHED_OTHER, *, forbids: bool = False) -> None:
        self.asked = 5
        self.policies = [policy]
        self.forbids = forbids
        self.turns = Turns(lambda: self.asked, lambda: self.policies[-1], self.schedule)

    def schedule(self, policy: int) -> None:
        if self.forbids:
            raise OSError(errno.EPERM, "not permitted")
        if policy != self.policies[-1]:
            self.policies.append(policy)

    def answers(self, rate_hz: int) -> int:
        """Half a second with so many questions a second; the policy after it."""
        self.asked += rate_hz // 2
        self.turns.look(0.5)
        return self.policies[-1]


def test_patient_while_busy_and_not_sooner_or_longer() -> None:
    machine = Machine()
    assert machine.answers(500) == os.SCHED_OTHER
    assert machine.answers(20_000) == os.SCHED_BATCH
    assert machine.answers(3_000) == os.SCHED_BATCH
    assert machine.answers(500) == os.SCHED_OTHER
    assert machine.answers(3_000) == os.SCHED_OTHER
    assert machine.policies == [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_OTHER]


def test_a_count_that_starts_anew_is_no_rush() -> None:
    machine = Machine()
    assert machine.answers(20_000) == os.SCHED_BATCH
    machine.asked = 0
    assert machine.answers(20_000) == os.SCHED_OTHER
    assert machine.answers(20_000) == os.SCHED_BATCH


def test_what_an_operator_chose_stays() -> None:
    assert Machine(os.SCHED_IDLE).answers(20_000) == os.SCHED_IDLE


def test_a_sandbox_that_forbids_it_is_asked_once_at_the_start() -> None:
    machine = Machine(forbids=True)
    machine.forbids = False
    assert machine.answers(20_000) == os.SCHED_OTHER


def test_a_system_that_does_not_tell_how_it_schedules_is_left_alone() -> None:
    def unknown() -> int:
        raise OSError(errno.ENOSYS, "not implemented")

    asked = iter((0, 20_000))
    Turns(lambda: next(asked), unknown, lambda policy: unknown()).look(0.5)


def test_the_system_does_so_to_this_thread_and_back() -> None:
    seen: list[int] = []

    def busy_then_calm() -> None:
        asked = iter((0, 20_000, 20_000))
        turns = Turns(lambda: next(asked))
        for _ in range(2):
            turns.look(0.5)
            seen.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=busy_then_calm)
    thread.start()
    thread.join()
    assert seen == [os.SCHED_BATCH, os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
