"""Sessions in Redis, for many processes: the store's contract as scripts (`lua/`).

`store.py` asks and understands the answers; `link.py` owns the connections and turns Redis's errors
into ours (`trouble.py`); `codec.py` is the record's shape in Redis.
"""
