"""Modules that a library imports and hardly ever uses: loaded by their first use."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec


def later(name: str) -> None:
    """Let ``from package import module`` give one that loads itself when it is used, if it is not loaded yet.

    ``import package.module`` is such a use: it looks at what it finds.

    Args:
        name: of a module below a package, whole: ``package.module``.
    """
    if name in sys.modules:
        return
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    package, _, own = name.rpartition(".")
    setattr(import_module(package), own, module)
