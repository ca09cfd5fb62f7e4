"""What `helm test` asks the running sidecar, on the standard library alone. Exit 0 = all is well."""

import http.client
import json
import os
import sys
import time
from urllib.parse import parse_qs, urlsplit

PROXY, PUBLIC_URL, PREFIX = os.environ["PROXY"], os.environ["PUBLIC_URL"], os.environ["PREFIX"]
OPERATIONS = os.environ.get("OPERATIONS", "")
PATIENCE_S = 60.0
PERSON = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
PROGRAM = {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}
failed = []


def ask(base, path, headers=None):
    """One GET; waits while nobody answers (names and endpoints take a moment after an installation)."""
    url, end = urlsplit(base), time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers or {})
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        except OSError as error:
            if time.monotonic() > end:
                return 0, {}, str(error).encode()
            time.sleep(1)
        finally:
            connection.close()


def check(what, good, found):
    print(f"{'ok  ' if good else 'FAIL'} {what}" + ("" if good else f": {found}"))
    if not good:
        failed.append(what)


host = {"Host": urlsplit(PUBLIC_URL).netloc} if PUBLIC_URL else {}

if OPERATIONS:
    end = time.monotonic() + 20.0
    while True:
        status, _, body = ask(OPERATIONS, "/readyz")
        away = json.loads(body)["away"] if status == 200 else []
        if not away or time.monotonic() > end:
            break
        time.sleep(1)
    check("the sidecar is ready", status == 200, f"/readyz answered {status} {body[:200]!r}")
    check("store and provider answer, as far as it knows", not away, f"away: {', '.join(away)}")
    status, _, body = ask(OPERATIONS, "/metrics")
    check("metrics are served", status == 200 and b"nightporter_" in body, f"/metrics answered {status}")

status, headers, _ = ask(PROXY, f"{PREFIX}/session", {**host, **PROGRAM})
check("without a session there is none", status == 401, f"{PREFIX}/session answered {status}")
forged = {"X-Forwarded-User": "root", "X_Forwarded_Email": "root@example.com", "Cookie": "__Host-np=AAAA"}
status, headers, _ = ask(PROXY, f"{PREFIX}/session", {**host, **PROGRAM, **forged})
check("forged headers and cookies open nothing", status == 401, f"{PREFIX}/session answered {status}")
status, headers, _ = ask(PROXY, f"{PREFIX}/login?rd=/", {**host, **PERSON})
if os.environ.get("SIGN_IN") == "true":
    target = urlsplit(headers.get("location", ""))
    asked = parse_qs(target.query)
    good = status in (302, 303) and bool(target.netloc) and bool({"state", "request_uri"} & set(asked))
    check(
        "a sign-in leads to the provider", good, f"{PREFIX}/login answered {status}; the pods' log says why"
    )
    if good:
        print(f"     {target.scheme}://{target.netloc}{target.path}")

print(f"{len(failed)} failed" if failed else "all is well")
sys.exit(1 if failed else 0)
