"""A process that must not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, *, enabled: bool = True) -> None:
    """Ask the kernel for SIGKILL when the parent dies (Linux; elsewhere the closed pipe must do). ``parent`` is its process id.

    A parent that died before this call is noticed too.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if enabled else 0, 0, 0, 0)
    if enabled and os.getppid() != parent:
        os._exit(1)
