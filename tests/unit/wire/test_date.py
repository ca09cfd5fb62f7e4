from __future__ import annotations

from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.date import http_date


@given(st.integers(0, 253_402_300_799))
def test_it_is_what_the_library_says(at: int) -> None:
    assert http_date(at) == formatdate(at, usegmt=True).encode()
