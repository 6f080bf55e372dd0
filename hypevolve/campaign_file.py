"""A campaign file as commands use it: read and checked here, on the machine of whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypevolve.console import CommandFailed
from hypevolve.programs import missing, require

NOT_FOUND, INVALID = 3, 5


@dataclass(frozen=True)
class CampaignFile:
    """``campaign`` is an evolution.campaign.Campaign; ``folder`` is where its relative paths start."""

    path: Path
    folder: Path
    campaign: Any

    @property
    def document(self) -> dict[str, Any]:
        """What a coordinator is sent: complete, with every other file inlined."""
        document: dict[str, Any] = self.campaign.to_document()
        return document


def read(path: Path) -> CampaignFile:
    """The campaign of a file.

    Raises:
        CommandFailed: with a line for each fault, which names place and remedy.
    """
    require("evolution")
    from evolution.campaign import Campaign
    from evolution.problems import InvalidInput

    folder = path.absolute().parent
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandFailed(f"there is no {path}; write one with: hypevolve init -o {path}", NOT_FOUND) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path} cannot be read: {error}; give a campaign file in UTF-8", INVALID) from None
    try:
        campaign = Campaign.read(text, str(path), lambda name: (folder / name).read_text(encoding="utf-8"))
    except InvalidInput as error:
        raise CommandFailed(str(error), INVALID) from None
    return CampaignFile(path, folder, campaign)


def scenario(file: CampaignFile, data_root: Path) -> Any:
    """The detector's reading of the base scenario (detector.scenario.Scenario), None where another trainer trains.

    Raises:
        CommandFailed: the scenario is none, or its data is not there.
    """
    if file.campaign.trainer.kind != "detector":
        return None
    if missing("detector"):
        return None
    from detector.scenario import Scenario

    try:
        found = Scenario.from_mapping(file.campaign.base, data_root=data_root)
    except ValueError as error:
        raise CommandFailed(f"{file.path} {error}", INVALID) from None
    return found


def absent_data(scenario: Any) -> str:
    """Why the data of a scenario cannot be looked at; nothing where it can."""
    if scenario is None or Path(scenario.data).exists():
        return ""
    return f"base.data: {scenario.data} does not exist; relative paths start at the campaign file's folder"


def facts_of(scenario: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What the preflight wants to know of the data, and everything the detector says of it.

    Raises:
        CommandFailed: the data set is there and cannot be used.
    """
    from detector.errors import DataError
    from detector.trainer import describe

    try:
        told = describe(scenario)
    except DataError as error:
        raise CommandFailed(str(error), INVALID) from None
    return {"classes": len(told["classes"]), "polygons": told["has_polygons"]}, told


def preflight_of(file: CampaignFile, facts: Mapping[str, Any] | None = None) -> Any:
    """What the campaign will do (evolution.preflight.Preflight)."""
    from evolution.preflight import preflight

    return preflight(file.campaign, facts)


def cost_of(file: CampaignFile, **known: Any) -> Any:
    """What the campaign will cost (evolution.cost.Cost)."""
    from evolution.cost import cost

    return cost(file.campaign, **known)


def trial_of(file: CampaignFile, limit_s: float) -> tuple[Any, str]:
    """The beginning of a training of the start hyp set (detector.trial.Trial), and the device it ran on, as a worker would.

    Raises:
        CommandFailed: it cannot be trained.
    """
    import torch

    from detector.errors import DataError, TrainingDiverged
    from detector.execution import Execution
    from detector.scenario import Scenario
    from detector.trial import trial
    from evolution.hyperparameters import Hyperparameters, split_hyp

    genes, instead = split_hyp(file.campaign.space.decode(file.campaign.space.start))
    scenario = Scenario.from_mapping({**file.campaign.base, **instead}, data_root=file.folder)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        hyp = Hyperparameters.from_mapping(genes, scenario.lineage)
        found = trial(hyp, scenario, limit_s=limit_s, execution=Execution(device))
    except (DataError, TrainingDiverged) as error:
        raise CommandFailed(f"the start hyp set cannot be trained: {error}", INVALID) from None
    return found, "one core" if device == "cpu" else device


def counted(report: Any) -> str:
    """``29 genes: 20 move, 4 fixed, 5 stuck at 0`` from a preflight."""
    words = {"moves": "move", "fixed": "fixed", "stuck at 0": "stuck at 0", "inert": "inert"}
    told = [f"{report.count(status)} {word}" for status, word in words.items() if report.count(status)]
    return f"{len(report.genes)} genes: {', '.join(told)}"
