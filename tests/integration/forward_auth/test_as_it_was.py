"""nginx as it was set up for oauth2-proxy's `/oauth2/auth`, with Nightporter in its place."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.browser import Browser
from tests.scenarios.house import House, free_port, until

pytestmark = pytest.mark.timeout(180)

# A named location redirects, and nginx tells where to return to, once by `rd` and once by the field.
NGINX = """
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
    uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
    server {{
        listen 127.0.0.1:{port};
        location /oauth2/ {{
            proxy_pass http://127.0.0.1:{pages};
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Auth-Request-Redirect $request_uri;
        }}
        location = /oauth2/auth {{
            proxy_pass http://127.0.0.1:{pages};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Uri $request_uri;
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
        }}
        location /staff/ {{
            auth_request /oauth2/auth_staff;
            proxy_pass http://127.0.0.1:{app};
        }}
        location = /oauth2/auth_staff {{
            internal;
            proxy_pass http://127.0.0.1:{pages}/oauth2/auth?allowed_groups=nobody-is-in-it;
            proxy_set_header Host $http_host;
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
        }}
        location / {{
            auth_request /oauth2/auth;
            error_page 401 = @sign_in;
            proxy_set_header X-Forwarded-User "";
            proxy_pass http://127.0.0.1:{app};
        }}
        location @sign_in {{ return 302 /oauth2/sign_in?rd=$scheme://$http_host$request_uri; }}
    }}
}}
"""


class AsItWas(House):
    """A house behind nginx, whose engine knows nothing of Nightporter."""

    def __init__(self, home: Path) -> None:
        self.front = free_port()
        self._nginx: subprocess.Popen[bytes] | None = None
        super().__init__(home, env={"NIGHTPORTER_PUBLIC_URL": f"http://127.0.0.1:{self.front}"})
        self.url = f"http://127.0.0.1:{self.front}"
        text = NGINX.format(home=home, port=self.front, pages=self.replica.port, app=self.app.port)
        (home / "nginx.conf").write_text(text)
        user = "user root;" if os.getuid() == 0 else ""
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        more = f"{user} daemon off; pid {home}/nginx.pid; error_log {home}/error.log;"
        try:
            command = [program, "-p", str(home), "-c", str(home / "nginx.conf"), "-g", more]
            self._nginx = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until(self._answers)
        except BaseException:
            self.end()
            raise

    def _answers(self) -> bool:
        assert self._nginx is not None
        assert self._nginx.poll() is None
        connection = http.client.HTTPConnection("127.0.0.1", self.front, timeout=10)
        try:
            connection.request("GET", "/oauth2/auth")
            return connection.getresponse().status == 401
        except OSError:
            return False
        finally:
            connection.close()

    def browser(self) -> Browser:
        return Browser(self.url, [self.front])

    def end(self) -> None:
        if self._nginx is not None:
            self._nginx.terminate()
            self._nginx.wait(20)
        super().end()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsItWas]:
    with AsItWas(tmp_path_factory.mktemp("as-it-was")) as house:
        yield house


def test_people_sign_in_come_back_and_stay(house: AsItWas) -> None:
    browser = house.browser()
    page = browser.visit("/page?x=1")
    assert (page.status, page.url) == (200, house.url + "/page?x=1")
    renewed = len(house.op.refreshes())
    house.expire()
    assert browser.get("/page").status == 200
    assert len(house.op.refreshes()) == renewed + 1
    assert browser.post("/oauth2/sign_out").status == 200
    assert browser.get("/page").status == 302


def test_a_sign_in_that_was_asked_for_itself_ends_at_home(house: AsItWas) -> None:
    # nginx names the address that it was asked for, which lies below the prefix: home, then.
    assert house.browser().visit("/oauth2/sign_in").url == house.url + "/"


def test_a_group_is_asked_for_by_the_address(house: AsItWas) -> None:
    browser = house.browser()
    assert browser.get("/staff/").status == 401
    browser.visit("/page")
    assert browser.get("/staff/").status == 403
    assert browser.get("/page").status == 200


def test_the_app_is_asked_by_nobody_who_is_not_signed_in(house: AsItWas) -> None:
    house.browser().get("/never-reached")
    assert house.app.reached("/never-reached") == []
