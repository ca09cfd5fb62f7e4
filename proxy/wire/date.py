"""The time of day as HTTP writes it (RFC 9110 §5.6.7).

`email.utils.formatdate` says the same; it comes with 0.3 MiB of mail, and 4 ms of imports.
"""

from __future__ import annotations

from datetime import UTC, datetime

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(at: float) -> bytes:
    """These Unix seconds as an IMF-fixdate: ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    time = datetime.fromtimestamp(at, UTC)
    day, month = _DAYS[time.weekday()], _MONTHS[time.month - 1]
    return f"{day}, {time.day:02} {month} {time.year:04} {time:%H:%M:%S} GMT".encode("ascii")
