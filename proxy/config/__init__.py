"""The configuration: declared once, read from four layers, checked as a whole.

`declaration.py` says what there is (`registry.py` lists it), `load.py` reads it, `checks.py`
judges it by the rules, `reference.py` writes it down (schema, page, `config show`), `keys.py`
makes and keeps cookie keys.
"""

from proxy.config.checks import warnings
from proxy.config.declaration import Cache, Journal, Limits, Op, Refresh, Settings, Several, Timeouts
from proxy.config.grammar import Address
from proxy.config.keys import cookie_keys
from proxy.config.load import Loaded, load, read
from proxy.config.secret import Secret, SecretUrl

__all__ = [
    "Address",
    "Cache",
    "Journal",
    "Limits",
    "Loaded",
    "Op",
    "Refresh",
    "Secret",
    "SecretUrl",
    "Settings",
    "Several",
    "Timeouts",
    "cookie_keys",
    "load",
    "read",
    "warnings",
]
