"""What the death of a process that trains means for its candidate."""

from __future__ import annotations

import signal
from typing import Any


def ending(status: int, who: str, tail: str = "") -> dict[str, Any]:
    """How a training ended whose process ``who`` died with ``status``, which is negative for a signal, as with subprocess.

    The message in place of the one that it could not say; ``tail`` is what was printed last.
    """
    if -status in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return {"say": "interrupted", "detail": signal.Signals(-status).name}
    if -status == signal.SIGKILL:
        cause = f"{who} was killed (SIGKILL), most likely for want of memory"
        return {"say": "failed", "kind": "oom", "detail": f"{cause}\n{tail}".strip()}
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return {"say": "failed", "kind": "crash", "detail": f"{tail}\n{who} died ({how})".strip()}
