"""Sessions in Redis, for many processes: the store's contract as scripts (`lua/`).

`store.py` asks and understands the answers; `link.py` owns the connections and turns Redis's errors
into ours (`trouble.py`); `codec.py` is the record's shape in Redis.
"""

from proxy.shell.later import later

# redis-py imports it to tell servers its own version, which ours does not (`driver_info`): with what
# comes along (zipfile, email, …) it would be 2.1 MiB at rest and 20 ms of a start.
later("importlib.metadata")
