"""A campaign: base scenario, trainer, space, fitness, strategy, seeds, budget. Read from a file, stored as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from evolution.campaign_genes import OpenFile
from evolution.campaign_limits import ANYBODY, Requires
from evolution.campaign_reader import Trainer, read_fields
from evolution.earlier_results import ImportedRow
from evolution.hyperparameters import LINEAGES
from evolution.problems import Findings, InvalidCampaign, Problem
from evolution.space import Space
from evolution.yaml import YamlError, load_document

__all__ = ["Campaign", "ImportedRow", "InvalidCampaign", "Problem", "Trainer"]


@dataclass(frozen=True)
class Campaign:
    """One evolution, complete and checked: whatever is left out of a file stands here with its default.

    ``base`` is the base scenario as written. ``weights`` are those of fitness, ``options`` those of the strategy.
    ``candidates`` is the budget, ``retries_failed`` how often a failed training is tried again, ``checkpoint_s`` the longest
    that a training goes without a checkpoint. ``gpu_hours``, ``deadline`` (ISO 8601 with offset) and ``patience`` (candidates
    without a new best) end it early. ``priority``, ``share`` and ``requires`` decide who trains it. ``notes`` say what was
    filled in. ``imported`` are rows of earlier evolutions, which stand outside the budget.
    """

    name: str
    base: Mapping[str, Any]
    trainer: Trainer
    space: Space
    weights: Mapping[str, float]
    strategy: str
    options: Mapping[str, Any]
    seed: int
    same_seed: bool
    candidates: int
    retries_failed: int
    heartbeat_s: float
    expire_s: float
    checkpoint_s: float = 300.0
    gpu_hours: float | None = None
    deadline: str | None = None
    patience: int | None = None
    priority: int = 0
    share: float = 1.0
    requires: Requires = ANYBODY
    notes: tuple[str, ...] = ()
    imported: tuple[ImportedRow, ...] = ()

    @property
    def epochs(self) -> int:
        """How long each candidate trains."""
        return int(self.base["epochs"])

    @property
    def lineage(self) -> str:
        return str(self.base.get("lineage") or LINEAGES[0])

    @classmethod
    def read(cls, text: str, source: str, open_file: OpenFile) -> Self:
        """The campaign of a campaign file.

        ``source`` is its name, for messages. ``open_file`` gives the text of a file that it names (``hyp``, ``seed_from``) or
        raises OSError.

        Raises:
            InvalidCampaign: with every problem found, each one line that names place, key and remedy.
        """
        try:
            document = load_document(text, source)
        except YamlError as error:
            raise InvalidCampaign(error.problems) from None
        return cls(**read_fields(Findings(source, document.line), document.value, open_file))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], source: str = "request") -> Self:
        """The campaign of a document, as ``to_document`` gives it; a campaign file's content with ``hyp`` inline is one too.

        Raises:
            InvalidCampaign: as ``read`` does, without lines.
        """
        return cls(**read_fields(Findings(source), document, None))

    def to_document(self) -> dict[str, Any]:
        """Everything, explicit and inlined, as JSON can carry it. ``from_document`` gives an equal campaign."""
        return {
            "name": self.name,
            "base": dict(self.base),
            "trainer": {
                "kind": self.trainer.kind,
                "python": self.trainer.python,
                "command": list(self.trainer.command),
                "results": self.trainer.results,
            },
            "genes": [
                {
                    "name": gene.name,
                    "start": gene.decode(gene.start),
                    "gain": gene.gain,
                    "min": gene.lower,
                    "max": gene.upper,
                    "scale": gene.scale,
                    "integer": gene.integer,
                    "meaning": gene.meaning,
                    "choices": list(gene.choices),
                }
                for gene in self.space
            ],
            "fitness": dict(self.weights),
            "evolve": {"strategy": self.strategy, "seed": self.seed, "same_seed": self.same_seed, **self.options},
            "budget": {
                "candidates": self.candidates,
                "gpu_hours": self.gpu_hours,
                "deadline": self.deadline,
                "patience": self.patience,
            },
            "retries": {"failed": self.retries_failed},
            "lease": {
                "heartbeat": self.heartbeat_s,
                "expire": self.expire_s,
                "checkpoint": self.checkpoint_s,
                "priority": self.priority,
                "share": self.share,
                "requires": self.requires.to_document(),
            },
            "notes": list(self.notes),
            "imported": [{"hyp": dict(row.hyp), "metrics": dict(row.metrics)} for row in self.imported],
        }
