"""What an operator says about Redis. Imports no client: other stores need none."""

from __future__ import annotations

from msgspec import Struct

from proxy.config.redis_address import RedisAddress


class LinkOptions(Struct, frozen=True):
    """How to reach Redis.

    Attributes:
        address: where it is.
        ca_file: PEM of CAs to trust as well; "" = only the system's.
        cert_file, key_file: client certificate and its key; "" = none.
        sentinel_username, sentinel_password: for the Sentinels; "" = none.
        timeout_s: limit of one operation, connecting included.
        prefix: of every key and channel.
        wait_replicas: how many replicas must have what must not be lost; 0 = none.
    """

    address: RedisAddress
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""
    timeout_s: float = 2.0
    prefix: str = "np:"
    wait_replicas: int = 0

    def __repr__(self) -> str:
        return f"LinkOptions({self.address!r})"
