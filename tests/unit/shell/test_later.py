"""Modules that load themselves when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_module_is_loaded_by_its_first_use() -> None:
    assert (
        said(
            "import sys; from proxy.shell.later import later; later('importlib.metadata');"
            "from importlib import metadata;"
            "before = 'zipfile' in sys.modules;"
            "import importlib.metadata as again;"
            "print(before, metadata.version('redis') > '1', 'zipfile' in sys.modules, metadata is again)"
        )
        == "False True True True"
    )


def test_what_is_loaded_stays_and_what_is_not_there_is_no_error() -> None:
    from proxy.shell.later import later

    before = sys.modules["importlib.util"]
    later("importlib.util")
    assert sys.modules["importlib.util"] is before
    later("importlib.no_such_module")
    with pytest.raises(ModuleNotFoundError):
        __import__("importlib.no_such_module")


def test_our_store_brings_redis_without_what_it_imports_for_its_version() -> None:
    """If a release of redis-py comes to use it on import, this fails, and `later` is to be taken out."""
    assert (
        said("import sys; import proxy.shell.store.redis.steadfast; print('zipfile' in sys.modules)")
        == "False"
    )
