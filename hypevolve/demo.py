"""``hypevolve demo``: the built-in data set and a campaign on it, ready to run."""

from __future__ import annotations

import json
from pathlib import Path

from hypevolve import programs
from hypevolve.console import CommandFailed

CANDIDATES = 12
NAME = "demo"


def prepare(folder: Path, candidates: int | None) -> Path:
    """Write data set and campaign file into ``folder`` and return the campaign file.

    A file that is there stays as it is, so that a demo goes on where it stopped, unless ``candidates`` asks for another budget.
    """
    programs.require("detector")
    from detector import digits

    file = folder / "campaign.yaml"
    try:
        data = digits.write(folder / "digits")
        if candidates is not None or not file.exists():
            file.write_text(campaign_text(dict(digits.DEMO_BASE), str(data.relative_to(folder)), candidates or CANDIDATES))
    except OSError as error:
        raise CommandFailed(f"cannot write the demo into {folder}: {error}; give another --folder") from error
    return file


def campaign_text(base: dict[str, object], data: str, candidates: int) -> str:
    """A campaign file that leaves out whatever has a default."""
    lines = [f"  {key}: {json.dumps(value)}" for key, value in ({"data": data} | base).items()]
    return "\n".join(
        [
            "# A real evolution in a few minutes on two CPU cores: a YOLOv5n learns to find handwritten digits.",
            "# Everything left out has its default; `hypevolve init` writes a file in which everything is spelled out.",
            f"name: {NAME}",
            "base:",
            *lines,
            "evolve: {strategy: hybrid, seed: 0}",
            f"budget: {{candidates: {candidates}}}",
            "",
        ]
    )
