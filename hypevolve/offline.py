"""Commands that need no coordinator: write a campaign file, and say what one will do before anything is trained."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypevolve import campaign_file, programs
from hypevolve.console import CommandFailed, Output, duration

CONFLICT, USAGE = 4, 2
PRESET = "hybrid"
MEASURED_S = 20.0


@dataclasses.dataclass(frozen=True)
class NewFile:
    """What ``init`` was asked for; None where it chooses."""

    output: Path
    preset: str = PRESET
    name: str | None = None
    data: str = "data.yaml"
    source: Path | None = None
    model: str | None = None
    epochs: int | None = None
    imgsz: int | None = None
    batch: int | None = None
    candidates: int = 300
    force: bool = False


def init(output: Output, new: NewFile) -> None:
    """Write a campaign file.

    Raises:
        CommandFailed: it is there already, the preset is unknown, or the file to start from cannot be used.
    """
    programs.require("evolution")
    from evolution.presets import ALL, preset

    if new.output.exists() and not new.force:
        raise CommandFailed(f"{new.output} exists; give another file with -o, or --force to replace it", CONFLICT)
    source = None if new.source is None else _source(new.source, new.output)
    imports = source is not None and Path(source).suffix in (".csv", ".txt", ".ndjson")
    model = str(ALL[new.preset].base["model"]) if new.preset in ALL else ""
    try:
        text = preset(
            new.preset,
            name_of_campaign=new.name or name_for(new.data, new.model or model),
            data=_data(Path(new.data), new.output),
            base={key: getattr(new, key) for key in ("model", "epochs", "imgsz", "batch") if getattr(new, key) is not None},
            candidates=new.candidates,
            hyp=None if imports else source,
        )
    except ValueError as error:
        raise CommandFailed(f"--preset: {error}", USAGE) from None
    if imports:
        text += f"seed_from: [{json.dumps(source)}]  # rows of an earlier evolution, as parents\n"
    replaced = new.output.read_bytes() if new.output.exists() else None
    _write(new.output, text)
    try:
        campaign = campaign_file.read(new.output).campaign
    except CommandFailed:
        # A file that `validate` refuses must not look like a start.
        if replaced is None:
            new.output.unlink()
        else:
            new.output.write_bytes(replaced)
        raise
    if output.json:
        output.document({"file": str(new.output), "name": campaign.name})
    else:
        output.say(f"wrote {new.output}: campaign {campaign.name}; next: hypevolve validate {new.output}")


def name_for(data: str, model: str) -> str:
    """A campaign name from a data set and a model: ``bccd-yolov5n``."""
    path = Path(data)
    stem = path.parent.name if path.stem in ("data", "") and path.parent.name else path.stem
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in f"{stem}-{model}".lower())
    return kept.strip("-")[:63] or "campaign"


def _source(source: Path, output: Path) -> str:
    if not source.is_file():
        raise CommandFailed(f"--from: there is no file {source}", campaign_file.NOT_FOUND)
    return _relative(source, output)


def _data(path: Path, output: Path) -> str:
    """The data as the campaign file names it: an absolute path stays one, since workers may start elsewhere."""
    return _relative(path, output) if path.exists() and not path.is_absolute() else str(path)


def _relative(path: Path, output: Path) -> str:
    """``path`` as the campaign file names it: from the campaign file's folder."""
    return os.path.relpath(path.absolute(), output.absolute().parent)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}; give another file with -o") from error


def validate(output: Output, path: Path, *, devices: int = 1, seconds: float | None = None, measure: bool = False) -> None:
    """The preflight of a campaign file, and what it will cost on ``devices`` that train one candidate each.

    How long a training takes is stated in ``seconds``, or measured.

    Raises:
        CommandFailed: the campaign, its base scenario or its data is invalid, or there is nothing to measure.
    """
    file = campaign_file.read(path)
    facts, told, unchecked = _look(file)
    report = campaign_file.preflight_of(file, facts)
    notes = [*report.notes, *(str(remark) for remark in told.get("remarks", ()))]
    if unchecked:
        notes.append(f"not checked: {unchecked}")
    size = None
    if measure:
        seconds, size, said = _measure(file, unchecked)
        notes.append(said)
    price = campaign_file.cost_of(file, seconds=seconds, devices=devices, checkpoint_bytes=size)
    genes = [dataclasses.asdict(gene) for gene in report.genes]
    if output.json:
        data = {key: value for key, value in told.items() if key != "remarks"}
        document = {"campaign": file.campaign.name, "genes": genes, "cost": dataclasses.asdict(price)}
        output.document(document | {"notes": notes, "data": data or None})
        return
    output.table(genes, ("name", "start", "gain", "lower", "upper", "status", "note"))
    output.say(campaign_file.counted(report))
    if told:
        output.say(data_words(told))
    for line in cost_words(price, file.campaign.epochs, file.campaign.candidates, file.campaign.deadline):
        output.say(line)
    for note in notes:
        output.say(f"note: {note}")


def _measure(file: campaign_file.CampaignFile, unchecked: str) -> tuple[float, int | None, str]:
    """Seconds of a training, bytes of a checkpoint, and how that was found."""
    if unchecked:
        raise CommandFailed(f"a training cannot be measured here: {unchecked}; state it with --seconds", USAGE)
    found, device = campaign_file.trial_of(file, MEASURED_S)
    if found.share == 1:
        return found.seconds, found.checkpoint_bytes, f"measured: one whole training on {device}"
    return (
        found.seconds,
        found.checkpoint_bytes,
        f"measured: the first {found.share:.1%} of a training on {device}; its last evaluation comes on top",
    )


def cost_words(price: Any, epochs: int, planned: int, deadline: str | None) -> list[str]:
    """What is to be said of a cost (evolution.cost.Cost), a line each."""
    words = f"cost: {price.trainings:,} trainings x {epochs:,} epochs = {price.epochs:,} epochs"
    if price.seconds is None:
        return [f"{words}; add --measure, or --seconds of a training, for hours and an end"]
    words += f", {price.device_hours:.3g} device-hours from {price.seconds:.3g} s a training"
    if price.trainings < planned:
        words += f" (budget.gpu_hours ends it before {planned:,})"
    end = datetime.now().astimezone() + timedelta(seconds=price.wall_s)
    device = "1 device" if price.devices == 1 else f"{price.devices} devices"
    lines = [words, f"on {device}: {duration(price.wall_s)}; started now it ends about {end:%a %d %b %Y, %H:%M}"]
    if deadline is not None and end > datetime.fromisoformat(deadline):
        lines.append(f"note: budget.deadline {deadline} comes first, after about {_share_until(price, deadline):.0%} of it")
    if price.checkpoint_bytes is not None:
        lines.append(f"checkpoints: {price.checkpoint_bytes / 1e6:,.0f} MB in the coordinator's store at most")
    return lines


def _share_until(price: Any, deadline: str) -> float:
    left = (datetime.fromisoformat(deadline) - datetime.now().astimezone()).total_seconds()
    return max(left, 0.0) / float(price.wall_s)


def _look(file: campaign_file.CampaignFile) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Facts for the preflight, all that is known of the data, and what could not be looked at and why."""
    kind = file.campaign.trainer.kind
    if kind != "detector":
        return {}, {}, f"the data, which trainer {kind} reads itself"
    if lacking := programs.missing("detector"):
        return {}, {}, f"the data ({lacking})"
    scenario = campaign_file.scenario(file, file.folder)
    if absent := campaign_file.absent_data(scenario):
        return {}, {}, absent
    facts, told = campaign_file.facts_of(scenario)
    return facts, dict(told), ""


def data_words(told: dict[str, Any]) -> str:
    """The data set in a line, from what the detector says of it."""
    outlines = "with" if told["has_polygons"] else "no"
    classes = len(told["classes"])
    parts = [
        f"{told['images']} training and {told['val_images']} validation images",
        f"{classes} {'class' if classes == 1 else 'classes'}",
    ]
    parts += [f"{outlines} polygons", f"{told['iterations']} iterations a training"]
    return f"data: {', '.join(parts)}"


def check_strategy(output: Output, name: str) -> None:
    """Print each promise that a strategy must keep, and whether it does.

    Raises:
        CommandFailed: the strategy is not here, or breaks a promise.
    """
    programs.require("server")
    from server.strategies import create
    from server.strategy_check import check

    try:
        strategy = create(name, {})
    except ValueError as error:
        raise CommandFailed(str(error), USAGE) from None
    found = list(check(strategy))
    broken = [(promise, fault) for promise, fault in found if fault]
    if output.json:
        output.document(
            {"strategy": name, "promises": [{"promise": promise, "fault": fault or None} for promise, fault in found]}
        )
    else:
        output.table([{"promise": promise, "kept": fault or "yes"} for promise, fault in found], ("promise", "kept"))
    if broken:
        raise CommandFailed(f"{name} breaks {len(broken)} of {len(found)} promises; first: {broken[0][0]}: {broken[0][1]}")
