"""Coming from oauth2-proxy: its configuration read, ours written.

`flags.py` says what becomes of each of its flags and is the table of the documentation. Readers
(`arguments.py`, `files.py`, `alpha.py`, `manifest.py`) gather what is given, wherever it stands;
the translators (`provider.py`, `access.py`, `paths.py`, `sessions.py`, `redis.py`, `network.py`,
`headers.py`) write a `Draft`; `writing.py` prints it and `trial.py` loads it as `serve` would.
"""
