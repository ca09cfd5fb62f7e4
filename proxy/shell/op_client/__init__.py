"""Everything that is said to the OP: the one module behind which Authlib, joserfc and httpx2 live."""

from proxy.shell.op_client.client import OPClient
from proxy.shell.op_client.config import OPConfig

__all__ = ["OPClient", "OPConfig"]
