"""What a reading of the store means: the same for a request, for a page and for an open stream."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from proxy.core.answers import Snapshot
from proxy.core.reading import Known, Over, Reading, Take, Wait, judge
from proxy.core.session import Ended, Record

NOW = 10_000.0
LIVE = Record(
    gen="g1", rt="f1", tokens=b"t", who=b"w", who_id="w1", born=9_000.0, seen=9_900.0, end=20_000.0,
    idle_s=600.0, due=0.0, provider="generic", config="",
)  # fmt: skip
NEWER = replace(LIVE, gen="g2", rt="f2")
IDLE = replace(LIVE, seen=9_300.0)
SIGNED_OUT = replace(LIVE, tombstone=Ended.SIGNED_OUT)
BY_OPERATOR = replace(LIVE, tombstone=Ended.OPERATOR)
BY_PROVIDER = replace(LIVE, tombstone=Ended.PROVIDER)
ENDS_AT = 20_000.0


def known(**more: object) -> Known:
    return Known(**{"ends_at": ENDS_AT, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("snapshot", "beside", "expected"),
    [
        pytest.param(Snapshot(LIVE, NOW), known(), Take(LIVE), id="first-reading"),
        pytest.param(Snapshot(NEWER, NOW), known(record=LIVE), Take(NEWER), id="newer-version"),
        pytest.param(Snapshot(SIGNED_OUT, NOW), known(record=LIVE), Over(Ended.SIGNED_OUT), id="tombstone"),
        pytest.param(Snapshot(IDLE, NOW), known(), Over(Ended.IDLE), id="idle"),
        pytest.param(Snapshot(LIVE, LIVE.end), known(record=LIVE), Over(Ended.ABSOLUTE), id="absolute"),
        pytest.param(Snapshot(LIVE, NOW), known(ends_at=NOW), Over(Ended.ABSOLUTE), id="absolute-by-cookie"),
        pytest.param(Snapshot(None, NOW), known(), Over(Ended.ABSENT), id="not-there"),
        pytest.param(Snapshot(None, NOW), known(ends_at=NOW), Over(Ended.ABSOLUTE), id="forgotten-at-its-limit"),
        pytest.param(Snapshot(None, NOW), known(record=IDLE), Over(Ended.IDLE), id="forgotten-while-idle"),
        pytest.param(Snapshot(None, NOW), known(record=LIVE), Over(Ended.ABSENT), id="lost-by-the-store"),
    ],
)  # fmt: skip
def test_a_reading_says_whether_there_is_a_session_and_why_not(
    snapshot: Snapshot, beside: Known, expected: Reading
) -> None:
    assert judge(snapshot, beside) == expected


@pytest.mark.parametrize("opened", [None, LIVE])
def test_a_session_that_a_mark_ended_is_told_with_its_tokens_until_it_has_a_tombstone(
    opened: Record | None,
) -> None:
    assert judge(Snapshot(LIVE, NOW, 9_500.0), known(record=opened)) == Over(Ended.OPERATOR, LIVE)
    assert judge(Snapshot(BY_OPERATOR, NOW, 9_500.0), known(record=opened)) == Over(Ended.OPERATOR)
    assert judge(Snapshot(LIVE, NOW, 8_500.0), known(record=opened)) == Take(LIVE)  # it began after the mark


@pytest.mark.parametrize("opened", [None, LIVE])
def test_a_session_that_the_provider_ended_is_told_with_its_tokens(opened: Record | None) -> None:
    assert judge(Snapshot(BY_PROVIDER, NOW), known(record=opened)) == Over(Ended.PROVIDER, BY_PROVIDER)


@pytest.mark.parametrize("unjudged", [False, True])
@pytest.mark.parametrize("record", [LIVE, NEWER, SIGNED_OUT, None])
def test_a_refused_session_is_over_whatever_the_store_says(record: Record | None, unjudged: bool) -> None:
    beside = known(record=LIVE, refused=Ended.MISMATCH, unjudged=unjudged)
    assert judge(Snapshot(record, NOW), beside) == Over(Ended.MISMATCH)


def test_tokens_that_are_being_checked_are_not_taken_and_endings_are() -> None:
    beside = known(record=LIVE, unjudged=True)
    assert judge(Snapshot(NEWER, NOW), beside) == Wait()
    assert judge(Snapshot(SIGNED_OUT, NOW), beside) == Over(Ended.SIGNED_OUT)
    assert judge(Snapshot(NEWER, NOW, 9_500.0), beside) == Over(Ended.OPERATOR, NEWER)
    assert judge(Snapshot(None, NOW), beside) == Over(Ended.ABSENT)
