"""Exits 0 where a worker of this container can train: OpenCV loads, and the lock of its folder is held.

The lock is looked up and never tried: while somebody tries, a worker that is just starting would be refused its folder.
The kernel lists only locks of this container's own processes, although others may use the same volume.
"""

import sys
from pathlib import Path

import cv2  # noqa: F401  what breaks first in a slim image

state = Path(sys.argv[1])
inodes = {str(lock.stat().st_ino) for lock in (*state.glob("lock"), *state.glob("*/lock"))}
held = {line.split()[5].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines() if " FLOCK " in line}
if not inodes & held:
    sys.exit(f"no worker holds a folder of {state}")
