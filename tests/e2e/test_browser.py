"""A person at a real browser: signs in, outlives three access tokens, signs out, tries the old cookie."""

from __future__ import annotations

import http.client
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Response, expect, sync_playwright

LIFE_S = 5
ARGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@dataclass
class Demo:
    """`nightporter demo` in a terminal of its own."""

    process: subprocess.Popen[bytes]
    terminal: int
    said: str = ""

    def read_until(self, pattern: str, limit_s: float) -> re.Match[str]:
        until = time.monotonic() + limit_s
        while not (match := re.search(pattern, self.said)):
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"not said within {limit_s} s: {pattern}\n{self.said}"
            try:
                self.said += os.read(self.terminal, 4096).decode()
            except OSError:  # the other end of the terminal is closed
                raise AssertionError(f"it ended without saying {pattern}\n{self.said}") from None
        return match


@pytest.fixture
def demo() -> Iterator[Demo]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "demo", "--life-s", str(LIFE_S)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Demo(process, ours)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        os.close(ours)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[BrowserContext]:
    chromium = shutil.which("chromium")
    assert chromium, "this test needs Chromium: `apt-get install chromium`, or run `make test`, which does"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"),
            executable_path=chromium,
            args=ARGS,
            viewport={"width": 1180, "height": 900},
        )
        yield context
        context.close()


@dataclass
class Watch:
    """What a page did since `start`."""

    page: Page
    answers: list[Response] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.page.on("response", lambda answer: self.answers.append(answer))
        self.page.on("framenavigated", lambda frame: self.moves.append(frame.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))


def replay(url: str, cookie: str, accept: str, mode: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    headers = {"Cookie": cookie, "Accept": accept, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": "document"}
    connection.request("GET", parts.path or "/", headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def listening(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.timeout(180)
def test_a_person_outlives_three_access_tokens_and_signs_out_for_good(
    demo: Demo, browser: BrowserContext, tmp_path: Path
) -> None:
    url = demo.read_until(r"Open +(http://127\.0\.0\.1:\d+/)", 60).group(1)
    page = browser.pages[0]

    page.goto(url + "?from=bookmark")
    expect(page.get_by_role("heading", name="Who are you today?")).to_be_visible()
    op = "{0.scheme}://{0.netloc}/".format(urlsplit(page.url))
    assert not page.url.startswith(url)
    page.screenshot(path=tmp_path / "1-provider.png")

    page.get_by_label("or under any other name").fill("Nora Night")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#who")).to_have_text("Nora Night")
    assert page.url == url + "?from=bookmark"  # back to the very page
    page.screenshot(path=tmp_path / "2-app.png")

    watch = Watch(page)
    watch.start()
    three = re.compile(r"^([3-9]|\d\d+)$")
    expect(page.locator("#outlived")).to_have_text(three, timeout=(5 * LIFE_S + 20) * 1000)
    expect(page.locator("#refreshes")).to_have_text(three)
    expect(page.locator("#redirects")).to_have_text("0")
    expect(page.locator("#log")).to_contain_text("Access token 3 has expired. You are still here.")
    page.screenshot(path=tmp_path / "3-three-expiries-later.png", full_page=True)
    assert len(watch.answers) > 3 * LIFE_S / 2
    assert {answer.status for answer in watch.answers} == {200}
    assert [answer.url for answer in watch.answers if answer.request.is_navigation_request()] == []
    assert watch.moves == []
    assert watch.complaints == []

    cookies = browser.cookies(url)
    assert [(c["name"], c["httpOnly"], c["sameSite"]) for c in cookies] == [("np", True, "Lax")]
    assert page.evaluate("document.cookie") == ""
    page.locator("summary").click()
    told = page.locator("details").inner_text()
    assert "Nora Night" in told
    assert cookies[0]["value"] not in told
    page.screenshot(path=tmp_path / "4-every-header.png", full_page=True)

    page.reload()
    expect(page.locator("#who")).to_have_text("Nora Night")
    ledger = page.request.get(op + "ledger").json()
    assert ledger["refreshes"] >= 3
    assert (ledger["invalid_grant"], ledger["reuse_detected"]) == (0, 0)
    assert ledger["token_calls"] == ledger["codes_redeemed"] + ledger["refreshes"]
    assert ledger["authorizations"] == 1

    page.locator("#sign-out").click()
    expect(page.locator("body")).to_contain_text(re.compile("signed out", re.IGNORECASE))
    assert page.url.startswith(url)
    page.screenshot(path=tmp_path / "5-signed-out.png")
    assert [c["name"] for c in browser.cookies(url)] == []

    old = f"{cookies[0]['name']}={cookies[0]['value']}"
    program = replay(url + "now", old, "application/json", "cors")
    assert program.status == 401
    assert program.headers["content-type"].startswith("application/problem+json")
    person = replay(url, old, "text/html", "navigate")
    assert person.status in (302, 303)
    assert "oauth2" in person.headers["location"] or person.headers["location"].startswith(op)

    page.goto(url)
    expect(page.get_by_role("heading", name="Who are you today?")).to_be_visible()  # the OP forgot, too
    assert page.request.get(op + "ledger").json()["sign_outs"] == 1

    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0
    assert not listening(url)
    assert not listening(op)
    print("screenshots:", tmp_path)
