"""What is learned of a provider, and what it changes."""

from __future__ import annotations

import pytest

from proxy.core.observed import SURE_AFTER, Observed
from proxy.core.providers import PROFILES, Reuse
from proxy.core.timing import RefreshPolicy
from proxy.core.token_reply import Issued


def issued(refresh_token: str, id_token: str = "idt", life: float | None = 300.0) -> Issued:
    return Issued("at", refresh_token, id_token, "", life)


def seen(*replies: str) -> Observed:
    observed = Observed()
    for reply in replies:
        observed.refreshed("rt0", issued(reply))
    return observed


@pytest.mark.parametrize("reply", ["", "rt0"])
def test_no_rotation_is_believed_after_several_replies_in_a_row(reply: str) -> None:
    punished = RefreshPolicy(reuse=Reuse.PUNISHED)
    for count in range(SURE_AFTER):
        assert seen(*[reply] * count).policy(punished) is punished
    sure = seen(*[reply] * SURE_AFTER)
    assert sure.rotates is False
    assert sure.policy(punished).reuse is Reuse.NONE


def test_one_new_token_is_believed_at_once() -> None:
    sure = seen("", "", "", "rt1")
    assert sure.rotates is True
    assert sure.policy(RefreshPolicy(reuse=Reuse.PUNISHED)).reuse is Reuse.PUNISHED
    assert sure.policy(RefreshPolicy(reuse=Reuse.GRACE)).reuse is Reuse.GRACE
    assert sure.policy(RefreshPolicy(reuse=Reuse.NONE)).reuse is Reuse.PUNISHED, "the safe expectation"


def test_g10_a_provider_that_turns_rotation_off_is_noticed() -> None:
    assert seen("rt1", "rt1x", "", "").rotates is True
    assert seen("rt1", "rt1x", "", "", "").rotates is False


def test_a_provider_that_replaces_tokens_at_times_is_never_believed_to_keep_them() -> None:
    """PingFederate's rolling interval, authentik's threshold: repeating a call is safe until it is not."""
    punished = RefreshPolicy(reuse=Reuse.PUNISHED)
    observed = Observed(rotates_at_times=PROFILES["pingfederate"].rotates_at_times)
    for _ in range(20):
        observed.refreshed("rt0", issued(""))
    assert observed.rotates is None
    assert observed.policy(punished) is punished
    observed.refreshed("rt0", issued("rt1"))
    assert observed.rotates is True


def test_nothing_seen_changes_nothing_and_exports_no_guess() -> None:
    observed, policy = Observed(), RefreshPolicy(reuse=Reuse.GRACE)
    assert observed.policy(policy) is policy
    assert {name for name, _, _ in observed.figures()} == {"sign_ins", "sign_ins_without_refresh_token"}


def test_sign_ins_without_a_refresh_token_are_counted() -> None:
    observed = Observed()
    observed.signed_in(issued("rt"))
    observed.signed_in(issued(""))
    figures = {name: value for name, _, value in observed.figures()}
    assert (figures["sign_ins"], figures["sign_ins_without_refresh_token"]) == (2, 1)
    assert figures["token_life_seconds"] == 300.0


def test_e8_an_odd_life_is_told_once_and_again_when_it_is_another() -> None:
    observed = Observed()
    said = [
        observed.odd_life(Issued("at", "rt", "", "", named), reckoned_s)
        for named, reckoned_s in ((300.0, 300.0), (None, 3600.0), (0.0, 3600.0), (0.0, 3600.0), (1e12, 9.0),
                                  (300.0, 300.0), (0.0, 3600.0))
    ]  # fmt: skip
    assert said == ["", "", "0", "", "1e+12", "", "0"]
