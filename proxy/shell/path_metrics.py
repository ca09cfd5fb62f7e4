"""The data path's plain counts as metric families, made when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.shell.server import Server


def families(server: Server) -> Iterator[Any]:
    """What the limits and time-outs of one listener did, and its connections now."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    counters = server.counters
    taken = CounterMetricFamily(
        "nightporter_connections_taken",
        "Connections from clients, by what became of them.",
        labels=["result"],
    )
    taken.add_metric(["accepted"], counters.accepted)
    taken.add_metric(["refused"], counters.refused)
    yield taken
    rejected = CounterMetricFamily(
        "nightporter_requests_rejected", "Requests that were not plainly legal, by status.", labels=["status"]
    )
    for status, count in counters.rejected.items():
        rejected.add_metric([str(status)], count)
    yield rejected
    timeouts = CounterMetricFamily(
        "nightporter_timeouts", "Deadlines that ran out, by what was waited for.", labels=["waited_for"]
    )
    for what, count in counters.timeouts.items():
        timeouts.add_metric([what], count)
    yield timeouts
    aborted = CounterMetricFamily("nightporter_exchanges_aborted", "Exchanges that one side broke off.")
    aborted.add_metric([], counters.aborted)
    yield aborted
    retries = CounterMetricFamily(
        "nightporter_upstream_retries", "Requests sent again because a kept connection had died."
    )
    retries.add_metric([], counters.retries)
    yield retries
    crowded = CounterMetricFamily(
        "nightporter_upstream_turned_away",
        "Requests refused because too many waited for a connection to an app.",
    )
    crowded.add_metric([], counters.crowded)
    yield crowded
    connections = GaugeMetricFamily(
        "nightporter_upstream_connections", "Connections to the apps.", labels=["upstream", "state"]
    )
    waiting = GaugeMetricFamily(
        "nightporter_upstream_waiting", "Requests that wait for a connection to an app.", labels=["upstream"]
    )
    upstreams = server.site.upstreams
    for pool in upstreams.pools() if upstreams is not None else ():
        connections.add_metric([pool.name, "idle"], pool.idle)
        connections.add_metric([pool.name, "busy"], pool.open - pool.idle)
        waiting.add_metric([pool.name], pool.waiting)
    yield connections
    yield waiting
