"""The demo's runner: an OP, an app, Nightporter between them, one URL.

With a terminal it waits for a person; without one it plays the person (`walk.py`), says what it
saw and exits 0, or 1 with a sentence about what was off. All children listen on the loopback
interface, live in a temporary directory and are ended by their process ids.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from proxy.config.redis_address import is_redis
from proxy.demo.failed import DemoFailed
from proxy.demo.house import House
from proxy.demo.interrupts import Interrupted, Signals
from proxy.demo.op import ACCESS_LIFE_S
from proxy.demo.ports import PORT, choose_ports
from proxy.demo.visitor import Lost
from proxy.demo.walk import EXPIRIES, walk

MIN_LIFE_S = 2
TOLD = ("sign_ins", "refreshes", "invalid_grant", "sign_outs")
"""Counters of the OP that are worth a line when they change."""


def _wait_for_a_person(house: House, life_s: int) -> None:
    """Say what to do, then report refreshes as the OP counts them, until interrupted.

    Raises:
        DemoFailed: a child ended.
    """
    print(
        f"""
  Open  {house.public_url}/

  1. You land on the demo provider's page. Be Ada, be Grace, or type any name.
  2. The app greets you by that name. It has no login of its own: see which header
     fields it is told, and that the session's cookie is not among them.
  3. Stay on the page. The access token lives {life_s} s; watch it being renewed, and
     "Expiries outlived" go up while "Redirects seen" stays at 0.
  4. Sign out. The provider forgets you too, and the old cookie opens nothing.

  The provider's own count: {house.issuer}/
  Ctrl-C stops everything.
""",
        flush=True,
    )
    seen = house.ledger()
    while True:
        time.sleep(0.5)
        fallen = house.fallen()
        if fallen is not None:
            raise DemoFailed(f"The {fallen.name} ended by itself:\n{fallen.last_words()}")
        ledger = house.ledger() or seen
        if any(ledger[name] != seen[name] for name in TOLD):
            told = ", ".join(f"{name.replace('_', '-')} {ledger[name]}" for name in TOLD)
            print(f"  {time.strftime('%H:%M:%S')}  {told}", flush=True)
        seen = ledger


def _play_the_person(house: House, life_s: int) -> int:
    """Walk through it without anybody; 0 if all was as promised."""
    print(
        f"No terminal: signing in by myself at {house.public_url}/ and staying for {EXPIRIES} expiries of "
        f"a {life_s} s token. This takes about {EXPIRIES * life_s + 3} s.",
        flush=True,
    )
    findings = walk(house.public_url, house.ledger, life_s)
    width = max(len(finding.what) for finding in findings)
    print()
    for finding in findings:
        mark = "ok " if finding.good else "OFF"
        print(f"  {mark}  {finding.what:<{width}}  {finding.seen}")
    print()
    off = [finding for finding in findings if not finding.good]
    if off:
        print("Not as it should be: " + "; ".join(f"{f.what}: {f.seen}, not {f.wanted}" for f in off) + ".")
        return 1
    print("Still signed in after the token expired, and signed out for good when asked to.")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit status: 0, or 1 after a sentence that says what was off.
    """
    parser = argparse.ArgumentParser(
        prog="nightporter demo",
        description="A demo provider, a sample app, and Nightporter between them. Loopback only.",
    )
    parser.add_argument("--port", type=_port, help=f"where to open it (default: {PORT}, or any free one)")
    parser.add_argument("--headless", action="store_true", help="sign in by itself, also with a terminal")
    parser.add_argument(
        "--life-s",
        type=_life,
        default=ACCESS_LIFE_S,
        metavar="SECONDS",
        help=f"life of an access token (default: {ACCESS_LIFE_S})",
    )
    parser.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="sessions in this Redis (redis://host:6379/0), for two proxies behind a tiny balancer",
    )
    options = parser.parse_args(argv)
    if options.store and not is_redis(options.store):
        parser.error("--store takes a Redis: redis://, rediss://, redis+sentinel:// or redis+cluster://")
    alone = options.headless or not (sys.stdin.isatty() and sys.stdout.isatty())
    signals = Signals()
    with signals.handled():
        return _run(options.port, options.life_s, options.store, alone, signals)


def _run(port: int | None, life_s: int, store: str, alone: bool, signals: Signals) -> int:
    """Set everything up, wait or walk, and leave nothing behind but the logs of a failure."""
    home = Path(tempfile.mkdtemp(prefix="nightporter-demo-"))
    house: House | None = None
    status, keep = 1, False
    try:
        house = House(choose_ports(port, two=bool(store)), life_s, home, store)
        house.start()
        if alone:
            status = _play_the_person(house, life_s)
            keep = status != 0
        else:
            _wait_for_a_person(house, life_s)
    except (DemoFailed, Lost) as error:
        print(f"\nThe demo cannot go on. {error}", file=sys.stderr)
        keep = house is not None
    except Interrupted:
        print("\nInterrupted before the end." if alone else "\nStopping the demo.", flush=True)
        status = 130 if alone else 0
    finally:
        signals.end()
        if house is not None:
            house.stop()
        if keep:
            print(f"The logs are in {home}", file=sys.stderr)
        else:
            shutil.rmtree(home, ignore_errors=True)
    return status


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return port


def _life(text: str) -> int:
    life_s = int(text)
    if life_s < MIN_LIFE_S:
        raise argparse.ArgumentTypeError(f"at least {MIN_LIFE_S} seconds")
    return life_s


if __name__ == "__main__":
    sys.exit(main())
