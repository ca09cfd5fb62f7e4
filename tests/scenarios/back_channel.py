"""The OP's side of a back-channel logout: one POST, without a browser."""

from __future__ import annotations

from urllib.parse import urlencode

from tests.scenarios.browser import Reply
from tests.scenarios.house import House, until

PATH = "/oauth2/backchannel-logout"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def tell(house: House, logout_token: str, *, replica: int = 0) -> Reply:
    """Post a logout token to a replica, as the OP does."""
    body = urlencode({"logout_token": logout_token}).encode()
    return house.browser().ask("POST", PATH, headers=FORM, body=body, replica=replica)


def obeyed(house: House, logout_token: str, *, replica: int = 0) -> None:
    """Post a logout token until it is obeyed. A busy machine may take a store for absent: then it is 503, and
    the replica itself tries again, too."""
    if tell(house, logout_token, replica=replica).status != 200:
        until(lambda: tell(house, logout_token, replica=replica).status in (200, 400))
