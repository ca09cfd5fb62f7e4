"""The benches of several replicas, in short: what they count must hold at any speed."""

from __future__ import annotations

import pytest

from bench import redis_down, storm


@pytest.mark.timeout(300)
def test_a_storm_over_two_replicas_costs_one_token_call_each_and_nobody() -> None:
    assert storm.run(short=True).failed == []


@pytest.mark.timeout(300)
def test_redis_away_under_load_signs_nobody_out() -> None:
    assert redis_down.run(short=True).failed == []
