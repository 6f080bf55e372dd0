"""What a campaign will do, said before the first training: which genes can move, which cannot and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evolution.campaign import Campaign
from evolution.space import Gene
from evolution.strategy import Strategy, create
from evolution.yolov5_2021 import DECIMALS

Status = Literal["moves", "fixed", "stuck at 0", "inert"]

FACTS = ("classes", "polygons")
FEW_VALUES = 101  # between the bounds; fewer steps than this are worth a word
ROUNDED = ("yolov5-2021", "ultralytics-2025", "ultralytics-2026")  # strategies whose children have few decimals


@dataclass(frozen=True)
class GeneReport:
    """A gene and what will become of it: ``inert`` means that it may move and that training will not notice."""

    name: str
    start: float
    gain: float
    lower: float
    upper: float
    status: Status
    note: str


@dataclass(frozen=True)
class Preflight:
    """The report."""

    genes: tuple[GeneReport, ...]
    notes: tuple[str, ...]

    def count(self, status: Status) -> int:
        return sum(gene.status == status for gene in self.genes)


def preflight(campaign: Campaign, facts: Mapping[str, Any] | None = None) -> Preflight:
    """The report on a campaign.

    ``facts``, where known, are what the detector says of the data: ``classes`` (how many), ``polygons`` (whether objects have
    outlines).

    Raises:
        ValueError: a fact has an unknown name.
    """
    facts = {} if facts is None else facts
    for name in facts:
        if name not in FACTS:
            raise ValueError(f"fact '{name}' is unknown; known: {', '.join(FACTS)}")
    strategy = create(campaign.strategy, campaign.options)
    inert = _inert(campaign, strategy, facts)
    rounded = campaign.strategy in ROUNDED
    limits = _limits(campaign)
    genes = tuple(_report(gene, strategy, inert, limits, rounded) for gene in campaign.space)
    notes = list(campaign.notes)
    stuck = [gene.name for gene in genes if gene.status == "stuck at 0"]
    if stuck:
        remedy = "give them another start value to let them move"
        notes.append(f"{', '.join(stuck)} start at 0 and stay there, since mutation multiplies: {remedy}")
    if campaign.imported:
        notes.append(f"{len(campaign.imported):,} imported rows stand outside the budget")
    return Preflight(genes, tuple(notes))


def _report(gene: Gene, strategy: Strategy, inert: Mapping[str, str], limits: Mapping[str, float], rounded: bool) -> GeneReport:
    status: Status = "moves"
    if gene.fixed:
        status = "fixed"
    elif not strategy.moves(gene, gene.start):
        status = "stuck at 0"
    elif gene.name in inert:
        status = "inert"
    notes = [inert[gene.name]] if gene.name in inert else []
    if gene.choices:
        notes.append(f"0 to {len(gene.choices) - 1} stand for {', '.join(str(choice) for choice in gene.choices)}")
    elif status == "moves":
        values = int(round((gene.upper - gene.lower) * 10**DECIMALS, 6)) + 1
        if rounded and values <= FEW_VALUES:
            notes.append(f"about {values} values, since children are rounded to {DECIMALS} decimals")
        if gene.start in (gene.lower, gene.upper):
            notes.append(f"starts on its {'lower' if gene.start == gene.lower else 'upper'} bound")
        if gene.upper > limits.get(gene.name, gene.upper):
            notes.append(f"acts up to {limits[gene.name]:.3g}, a third of the epochs")
    return GeneReport(gene.name, gene.start, gene.gain, gene.lower, gene.upper, status, "; ".join(notes))


def _inert(campaign: Campaign, strategy: Strategy, facts: Mapping[str, Any]) -> dict[str, str]:
    """Genes that cannot change this training, with the reason. Nothing is known of a trainer that is not ours."""
    if campaign.trainer.kind != "detector":
        return {}
    inert: dict[str, str] = {}
    if campaign.lineage == "yolov5":
        inert["iou_t"] = "unused by lineage yolov5"
    if facts.get("classes") == 1:
        inert |= dict.fromkeys(("cls", "cls_pw"), "one class has no class loss")
    if facts.get("polygons") is False:
        inert["copy_paste"] = "the data has no polygons"
    if campaign.base.get("rect") is True:
        inert |= dict.fromkeys(("mosaic", "mixup", "copy_paste"), "rect: true trains without mosaic")
    elif _stays_zero(campaign, strategy, "mosaic"):
        inert |= {"mixup": "blends mosaics, and mosaic stays 0", "copy_paste": "pastes into mosaics, and mosaic stays 0"}
    if campaign.base.get("anchors") == "stock":
        inert["anchors"] = "anchors: stock keeps the model's own"
    if _stays_zero(campaign, strategy, "warmup_epochs"):
        inert |= dict.fromkeys(("warmup_momentum", "warmup_bias_lr"), "warmup_epochs stays 0")
    return inert


def _limits(campaign: Campaign) -> dict[str, float]:
    """Values beyond which a gene changes nothing more in this training (``detector/optim.py`` caps the warm-up)."""
    return {"warmup_epochs": campaign.epochs / 3} if campaign.trainer.kind == "detector" else {}


def _stays_zero(campaign: Campaign, strategy: Strategy, name: str) -> bool:
    if name not in campaign.space:
        return False
    gene = campaign.space[name]
    return gene.start == 0 and not strategy.moves(gene, 0.0)
