"""The small tables: framing, the two halves of an exchange, the valve, a WebSocket's frames."""

from __future__ import annotations

import pytest

from proxy.errors import BadRequest, UpstreamError
from proxy.wire import exchange as ex
from proxy.wire.exchange import Exchange
from proxy.wire.framing import (
    CHUNKED,
    UNTIL_CLOSE,
    coding_status,
    content_length,
    request_length,
    response_length,
)
from proxy.wire.valve import AUTH, PEER_FULL, PIPELINE, Valve
from proxy.wire.websocket import going_away, whole_frames


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"0", 0), (b"5", 5), (b"007", 7), (b"999999999999999", 999_999_999_999_999)]
    + [(bad, -1) for bad in (b"", b"+1", b"-1", b"1,1", b"1 1", b"0x1", b"1_0", b"1e3", b"9" * 16, b"\xb2")],
)
def test_content_length_is_digits_only(value: bytes, expected: int) -> None:
    assert content_length(value) == expected


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"chunked", 0),
        (b"CHUNKED", 0),
        (b"", 400),
        (b"chunked;q=1", 400),
        (b"chunked,", 400),
        (b"chunked, chunked", 400),
        (b"identity", 400),
        (b"gzip", 501),
        (b"gzip, chunked", 501),
        (b"chunked, gzip", 501),
    ],
)
def test_the_only_coding_is_chunked(value: bytes, status: int) -> None:
    assert coding_status(value) == status


def test_request_framing() -> None:
    assert request_length(1, None, False) == 0
    assert request_length(1, 5, False) == 5
    assert request_length(0, 5, False) == 5
    assert request_length(1, None, True) == CHUNKED
    for version, length in ((1, 0), (0, None)):
        with pytest.raises(BadRequest):
            request_length(version, length, True)


@pytest.mark.parametrize(
    ("method", "status", "version", "length", "chunked", "expected"),
    [
        (b"GET", 200, 1, 5, False, 5),
        (b"GET", 200, 1, None, False, UNTIL_CLOSE),
        (b"GET", 200, 1, None, True, CHUNKED),
        (b"HEAD", 200, 1, 5, False, 0),
        (b"HEAD", 200, 1, None, True, 0),
        (b"GET", 204, 1, 5, False, 0),
        (b"GET", 304, 1, 5, False, 0),
        (b"GET", 103, 1, None, False, 0),
        (b"GET", 205, 1, 0, False, 0),
    ],
)
def test_response_framing(
    method: bytes, status: int, version: int, length: int | None, chunked: bool, expected: int
) -> None:
    assert response_length(method, status, version, length, chunked) == expected


def test_a_response_framed_twice_is_refused_even_where_no_body_follows() -> None:
    for method in (b"GET", b"HEAD"):
        for version, length in ((1, 5), (0, None)):
            with pytest.raises(UpstreamError):
                response_length(method, 200, version, length, True)


def run(request: list[int], response: list[int], *, client: bool = True, app: bool = True) -> Exchange:
    found = Exchange(client_keeps=client)
    found.app_keeps = app
    for event in request:
        found.request_event(event)
    for event in response:
        found.response_event(event)
    return found


def test_connections_are_reused_only_after_two_complete_messages() -> None:
    whole = ([ex.HEAD, ex.END], [ex.INFORMATIONAL, ex.HEAD, ex.END])
    assert run(*whole).upstream_reusable
    assert run(*whole).downstream_reusable
    assert not run(*whole, app=False).upstream_reusable
    assert run(*whole, app=False).downstream_reusable
    assert not run(*whole, client=False).downstream_reusable
    assert run(*whole, client=False).upstream_reusable
    early = run([ex.HEAD], [ex.HEAD, ex.END])
    assert not early.upstream_reusable
    assert not early.downstream_reusable
    for request, response in (
        ([ex.HEAD, ex.BROKEN], [ex.HEAD, ex.END]),
        ([ex.HEAD, ex.END], [ex.HEAD, ex.BROKEN]),
        ([ex.HEAD, ex.END], [ex.HEAD]),
        ([ex.HEAD, ex.END, ex.SWITCH, ex.END], [ex.SWITCH]),
    ):
        found = run(request, response)
        assert not found.upstream_reusable
        assert not found.downstream_reusable


def test_what_the_tables_leave_out_is_an_error() -> None:
    for half in range(5):
        for event in range(5):
            found = Exchange()
            found.request = found.response = half
            if (half, event) in ex.REQUEST:
                found.request_event(event)
                assert found.request == ex.REQUEST[half, event]
            else:
                with pytest.raises(RuntimeError):
                    found.request_event(event)
            if (half, event) in ex.RESPONSE:
                found.response_event(event)
                assert found.response == ex.RESPONSE[half, event]
            else:
                with pytest.raises(UpstreamError):
                    found.response_event(event)


class Source:
    """Counts what a valve tells it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.closing = False

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def is_closing(self) -> bool:
        return self.closing


def test_reading_resumes_when_the_last_reason_goes() -> None:
    source = Source()
    valve = Valve(source)
    valve.shut(AUTH)
    valve.shut(PEER_FULL)
    valve.shut(AUTH)
    valve.open(AUTH)
    assert source.told == ["pause"]
    valve.open(PIPELINE)
    valve.open(PEER_FULL)
    valve.open(PEER_FULL)
    assert source.told == ["pause", "resume"]
    source.closing = True
    valve.shut(AUTH)
    valve.open(AUTH)
    assert source.told == ["pause", "resume"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True),
        (b"\x81\x01x", True),
        (b"\x81\x01x\x89\x00", True),
        (b"\xc1\x01x", True),  # permessage-deflate
        (b"\x82\x7e\x00\x80" + b"x" * 128, True),
        (b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"x" * 70_000, True),
        (b"\x81\x02x", False),
        (b"\x81", False),
        (b"\x81\x81\x00\x00\x00\x00x", False),
        (b"\x83\x00", False),
        (b"\xa1\x00", False),
        (b"hello", False),
        (going_away(), True),
    ],
)
def test_whether_a_frame_may_follow(data: bytes, expected: bool) -> None:
    assert whole_frames(data) is expected
