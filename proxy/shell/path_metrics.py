"""The data path's plain counts as metric families, made when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.shell.server import Server


def families(public: Server, engines: Server | None) -> Iterator[Any]:
    """What the limits and time-outs did, and the connections now.

    Args:
        public: where browsers come in.
        engines: where forward auth is asked for; None = nowhere.
    """
    yield from _of_clients({"public": public, **({"forward_auth": engines} if engines is not None else {})})
    yield from _of_apps(public)


def _of_clients(listeners: Mapping[str, Server]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    connections = GaugeMetricFamily(
        "nightporter_connections", "Open connections from clients.", labels=["listener"]
    )
    taken = CounterMetricFamily(
        "nightporter_connections_taken",
        "Connections from clients, by what became of them.",
        labels=["listener", "result"],
    )
    rejected = CounterMetricFamily(
        "nightporter_requests_rejected",
        "Requests that were not plainly legal, by status.",
        labels=["listener", "status"],
    )
    timeouts = CounterMetricFamily(
        "nightporter_timeouts",
        "Deadlines that ran out, by what was waited for.",
        labels=["listener", "waited_for"],
    )
    for name, server in listeners.items():
        counters = server.counters
        connections.add_metric([name], server.connections)
        taken.add_metric([name, "accepted"], counters.accepted)
        taken.add_metric([name, "refused"], counters.refused)
        for status, count in counters.rejected.items():
            rejected.add_metric([name, str(status)], count)
        for what, count in counters.timeouts.items():
            timeouts.add_metric([name, what], count)
    yield connections
    yield taken
    yield rejected
    yield timeouts


def _of_apps(server: Server) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    counters = server.counters
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
