"""The campaign that benchmarks of the service measure with: two genes, and a trainer that nobody calls."""

from __future__ import annotations

from typing import Any


def campaign(name: str, candidates: int, *, epochs: int = 1) -> dict[str, Any]:
    """A campaign of ``candidates`` for clients that make their results up; any hyp set inside [0.01, 1] is allowed."""
    return {
        "name": name,
        "base": {"epochs": epochs},
        "trainer": {"python": "toy:train"},
        "hyp": {"x": 0.5, "y": 0.5},
        "space": {gene: {"gain": 1, "min": 0.01, "max": 1} for gene in "xy"},
        "evolve": {"strategy": "yolov5-2021"},
        "budget": {"candidates": candidates},
    }
