"""Kernels compiled by numba, kept in its cache on disk where there is a usable one.

A read-only installation, a full disk or damaged cache files only cost the time to compile again;
calls still succeed.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.serialize import dumps

log = logging.getLogger("foundry3d")

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


@cache
def _notice_once() -> None:
    log.warning(
        "compiled kernels cannot be kept on disk, so every process compiles them again; set "
        "NUMBA_CACHE_DIR to a folder that can be written"
    )


@cache
def _compiling_once() -> None:
    log.info("compiling kernels, once for this installation; this can take a minute")


class _Entry(CompileResultCacheImpl):
    """A compiled kernel with a checksum: damaged machine code would end the process."""

    def reduce(self, cres: Any) -> tuple[str, bytes]:
        data = dumps(super().reduce(cres))
        return hashlib.sha256(data).hexdigest(), data

    def rebuild(self, target_context: Any, payload: tuple[str, bytes]) -> Any:
        checksum, data = payload
        if hashlib.sha256(data).hexdigest() != checksum:
            raise ValueError("the compiled code differs from what was written")
        return super().rebuild(target_context, pickle.loads(data))


class _Cache(FunctionCache):
    """A cache on disk whose damaged entries are replaced."""

    _impl_class = _Entry

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:  # damaged files fail in every way there is
            log.debug("%s: a cached kernel is not readable (%s)", self._name, error)
            found = None
        if found is None:
            _compiling_once()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            try:
                super().save_overload(sig, data)
            except Exception:  # as above: the index is damaged, so a new one is started
                self.flush()
                super().save_overload(sig, data)
        except Exception as error:
            log.debug("%s: the kernel is not cached (%s)", self._name, error)
            _notice_once()


class _NoCache(NullCache):
    """Stands where no folder can be written; the first compilation gives notice."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        _notice_once()


_njit: Any = njit
"""Its types leave out the options about wrappers, of which kernels need one at most."""
_RELAXED: dict[str, Any] = {"fastmath": True, "error_model": "numpy"}


def _kept(kernel: Kernel, **options: Any) -> Kernel:
    dispatcher: Any = _njit(nogil=True, no_cfunc_wrapper=True, **options)(kernel)
    try:
        dispatcher._cache = _Cache(kernel)
    except (RuntimeError, OSError):  # numba found no folder that can be written
        dispatcher._cache = _NoCache()
    return dispatcher


def _part(kernel: Kernel, **options: Any) -> Kernel:
    part: Kernel = _njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(kernel)
    return part


def compiled(kernel: Kernel) -> Kernel:
    """Compiles a kernel at its first call, without the interpreter lock and without fast-math."""
    return _kept(kernel)


def relaxed(kernel: Kernel) -> Kernel:
    """The same with fast-math, where the last bits of numbers do not matter: no inf, no NaN."""
    return _kept(kernel, **_RELAXED)


def compiled_part(kernel: Kernel) -> Kernel:
    """A part of `compiled` kernels, which Python cannot call.

    It is compiled sooner, without what converts its arguments, and kept with the kernels alone.
    """
    return _part(kernel)


def relaxed_part(kernel: Kernel) -> Kernel:
    """A part of `relaxed` kernels, which Python cannot call; see `compiled_part`."""
    return _part(kernel, **_RELAXED)
