"""Answers of ours as bytes: status line, fields, body, and what the data path adds."""

from __future__ import annotations

from http import HTTPStatus

from proxy.core import notice
from proxy.core.gate import Answer, is_navigation
from proxy.core.problem import problem
from proxy.errors import ProxyError
from proxy.wire.head import RequestHead

_PHRASES = {int(status): status.phrase.encode("ascii") for status in HTTPStatus}
RETRY_AFTER_S = 2

_TITLES = {
    502: "The application cannot be reached",
    503: "Not available at the moment",
    504: "The application did not answer in time",
}


def answer_bytes(
    answer: Answer, request_id: bytes, date: bytes, close: bool, keep_alive: bool, with_body: bool
) -> bytes:
    """An answer ready to be written.

    Args:
        close: this is the connection's last answer.
        keep_alive: say so, because the client speaks HTTP/1.0.
        with_body: false for HEAD; the length is told all the same (RFC 9110 §9.3.2).
    Raises:
        ValueError: a field of the answer would break out of its line.
    """
    status = answer.status
    lines = [b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b""))]
    for name, value in answer.headers:
        if name.find(b"\r") >= 0 or value.find(b"\r") >= 0 or name.find(b"\n") >= 0 or value.find(b"\n") >= 0:
            raise ValueError("a header field holds a line break")
        lines.append(b"%b: %b" % (name, value))
    lines.append(b"%bDate: %b\r\nX-Request-Id: %b" % (answer.ready, date, request_id))
    if status != 204 and status != 304:  # RFC 9110 §8.6
        lines.append(b"Content-Length: %d" % len(answer.body))
    else:
        with_body = False
    if close:
        lines.append(b"Connection: close")
    elif keep_alive:
        lines.append(b"Connection: keep-alive")
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    return head + answer.body if with_body and answer.body else head


def error_answer(error: ProxyError, request_id: bytes, head: RequestHead | None, *, decision: str) -> Answer:
    """What a client gets for an error: a small page for people, problem JSON for programs.

    Args:
        head: of the request, None if there is no legal one.
        decision: one word for the log.
    """
    status = error.status
    retry_s = RETRY_AFTER_S if status == 503 else None
    if head is not None and status >= 500 and is_navigation(head.method, head.get):
        title = _TITLES.get(status, "Something went wrong")
        body = notice.page(title, error.message, request_id)
        return Answer(status, notice.headers(retry_s=retry_s), body, decision)
    fields, body = problem(
        status, "", error.message, request_id.decode("latin-1"), code=decision, retry_after_s=retry_s
    )
    return Answer(status, fields, body, decision)
