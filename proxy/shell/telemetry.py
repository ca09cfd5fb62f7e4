"""Logs and figures. Nothing here ever sees a token, a cookie or a query string.

One JSON line per event on stdout; one line per request. The warm path adds to plain
integers, which are turned into metrics only when somebody scrapes them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

import msgspec
from msgspec import Struct, field

from proxy.core.observed import Observed
from proxy.shell.done import Done

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class JsonLines(logging.Formatter):
    """Log records as one JSON object a line; control characters are escaped by JSON itself."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            # The type and the place, never the text: a foreign exception may quote its input.
            line["exception"] = type(record.exc_info[1]).__name__
            line["at"] = _where(record.exc_info[1])
        return json.dumps(line, default=str)


def _where(error: BaseException) -> list[str]:
    found: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return found[-6:]


def set_up_logging(level: str, stream: IO[str] | None = None) -> None:
    """Send every log of the process to `stream` (stdout) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("nightporter").setLevel(level.upper())


LINES_AT_ONCE = 128


class _Line(Struct, omit_defaults=True, gc=False):
    """The line of a request; written with the others that wait, in C: half of what formatting each costs."""

    time: float
    event: str
    id: str
    method: str
    path: str
    status: int
    decision: str
    ms: float
    upstream_ms: float
    in_: int = field(name="in")
    out: int
    peer: str
    error: str = ""


_encoder = msgspec.json.Encoder()


def _line(entry: Done, ahead_s: float) -> _Line:
    """The line of a request.

    Args:
        ahead_s: of the wall clock, to the monotonic one.
    """
    # The parser found all three to be visible ASCII. Times are cut to what is worth reading: milliseconds
    # of the clock, hundredths of one of a duration.
    return _Line(
        int((entry.ended_at + ahead_s) * 1e3) / 1e3,
        "request",
        entry.request_id.decode("latin-1"),
        entry.method.decode("latin-1"),
        entry.path.decode("latin-1"),
        entry.status,
        entry.decision,
        int(entry.duration_s * 1e5 + 0.5) / 100,
        int(entry.upstream_s * 1e5 + 0.5) / 100,
        entry.bytes_in,
        entry.bytes_out,
        entry.peer,
        entry.error,
    )


class Histogram:
    """Counts of durations by bucket; cheap to add to."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        for index, bound in enumerate(BUCKETS_S):
            if seconds <= bound:
                self.counts[index] += 1
                break
        else:
            self.counts[-1] += 1
        self.sum_s += seconds


class Telemetry:
    """The figures of one process.

    Args:
        write: takes ready log lines of requests (bytes, newline included).
        log_requests: whether each request gets a line.
    """

    def __init__(self, write: Callable[[str], Any] | None = None, *, log_requests: bool = True) -> None:
        self._write = write or _to_stdout
        self._log_requests = log_requests
        self._entries: list[Done] = []
        self.requests: Counter[tuple[str, int]] = Counter()
        self.refreshes: Counter[tuple[str, str]] = Counter()
        self.refresh_s = Histogram()
        self.store_s: dict[tuple[str, str], Histogram] = {}
        self.events: Counter[str] = Counter()
        self.lag_s = 0.0
        self.lag_max_s = 0.0
        self.observed: Callable[[], Mapping[str, Observed]] = dict
        self.more: list[Callable[[], Iterable[Any]]] = []
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def request(self, entry: Done) -> None:
        """Take note of a finished exchange; it is counted and written with the others that wait."""
        entries = self._entries
        entries.append(entry)
        if len(entries) >= LINES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Count and write the exchanges that wait: twice a second, when many do, and before a scrape.

        Together, because the same steps for a hundred of them cost half of what they cost in between
        other work (1.5 µs a request).
        """
        entries, self._entries = self._entries, []
        if not entries:
            return
        for (decision, status), count in Counter([(each.decision, each.status) for each in entries]).items():
            self.requests[decision, status // 100] += count
        if self._log_requests:
            ahead_s = time.time() - time.monotonic()
            self._write(_encoder.encode_lines([_line(each, ahead_s) for each in entries]).decode())

    def refresh(self, outcome: str, code: str, took_s: float) -> None:
        """Count a renewal's end."""
        self.refreshes[outcome, code if outcome != "ok" else ""] += 1
        self.refresh_s.add(took_s)

    def store(self, operation: str, result: str, took_s: float) -> None:
        """Count a store operation."""
        histogram = self.store_s.get((operation, result))
        if histogram is None:
            histogram = self.store_s[operation, result] = Histogram()
        histogram.add(took_s)

    def event(self, name: str, **fields: object) -> None:
        """An audit line that also counts: sign-ins, sign-outs, refusals."""
        self.events[name] += 1
        logging.getLogger("nightporter.audit").info(name, extra=fields)

    async def watch_lag(self, every_s: float = 0.5) -> None:
        """Measure how late the loop wakes us, and write the lines that wait; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            await asyncio.sleep(every_s)
            self.flush()
            self.lag_s = max(0.0, loop.time() - asked - every_s)
            self.lag_max_s = max(self.lag_max_s, self.lag_s)

    def scrape(self) -> bytes:
        """All figures in the Prometheus text format."""
        self.flush()
        from prometheus_client import generate_latest

        return generate_latest(self)  # pyright: ignore[reportArgumentType]  # it only calls collect()

    def collect(self) -> Iterable[Any]:
        """The figures as prometheus_client's metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "nightporter_requests", "Requests by decision and status class.", labels=["decision", "status"]
        )
        for (decision, status), count in self.requests.items():
            requests.add_metric([decision, f"{status}xx"], count)
        yield requests
        refreshes = CounterMetricFamily(
            "nightporter_refresh", "Renewals by outcome and code.", labels=["outcome", "code"]
        )
        for (outcome, code), count in self.refreshes.items():
            refreshes.add_metric([outcome, code], count)
        yield refreshes
        took = HistogramMetricFamily("nightporter_refresh_seconds", "Duration of renewals.")
        took.add_metric([], *_buckets(self.refresh_s))
        yield took
        store = HistogramMetricFamily(
            "nightporter_store_seconds", "Store operations.", labels=["operation", "result"]
        )
        for (operation, result), histogram in self.store_s.items():
            store.add_metric([operation, result], *_buckets(histogram))
        yield store
        events = CounterMetricFamily("nightporter_events", "Audit events.", labels=["event"])
        for name, count in self.events.items():
            events.add_metric([name], count)
        yield events
        lag = GaugeMetricFamily("nightporter_loop_lag_seconds", "How late the event loop last was.")
        lag.add_metric([], self.lag_s)
        yield lag
        worst = GaugeMetricFamily("nightporter_loop_lag_max_seconds", "How late the loop ever was.")
        worst.add_metric([], self.lag_max_s)
        yield worst
        yield from self._of_providers()
        for families in self.more:
            yield from families()
        for name, (text, read) in self.gauges.items():
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric([], read())
            yield gauge

    def _of_providers(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        made: dict[str, Any] = {}
        for provider, observed in self.observed().items():
            for name, text, value in observed.figures():
                family = made.get(name)
                if family is None:
                    kind = CounterMetricFamily if name.startswith("sign_ins") else GaugeMetricFamily
                    family = made[name] = kind(f"nightporter_provider_{name}", text, labels=["provider"])
                family.add_metric([provider], value)
        yield from made.values()


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    total = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip(BUCKETS_S, histogram.counts, strict=False):
        total += count
        found.append((str(bound), total))
    found.append(("+Inf", total + histogram.counts[-1]))
    return found, histogram.sum_s
