"""What is said before the first training."""

import pytest

from evolution.campaign import Campaign
from evolution.preflight import preflight


def campaign(**changes):
    return Campaign.from_document({"name": "tiny", "base": {"epochs": 10}, "evolve": {"strategy": "yolov5-2021"}, **changes})


def statuses(campaign, facts=None):
    return {gene.name: gene.status for gene in preflight(campaign, facts).genes}


def test_the_preset_says_what_moves():
    report = preflight(campaign())
    by = {status: [g.name for g in report.genes if g.status == status] for status in ("fixed", "stuck at 0", "inert")}
    assert by["fixed"] == ["iou_t", "fl_gamma", "perspective", "fliplr"]
    assert by["stuck at 0"] == ["degrees", "shear", "flipud", "mixup", "copy_paste"]
    assert by["inert"] == []
    assert report.count("moves") == 20
    assert report.notes == (
        "degrees, shear, flipud, mixup, copy_paste start at 0 and stay there, since mutation multiplies: "
        "give them another start value to let them move",
    )


def test_facts_of_the_data():
    report = statuses(campaign(space={"copy_paste": {"start": 0.3}}), {"classes": 1, "polygons": False})
    assert [name for name, status in report.items() if status == "inert"] == ["cls", "cls_pw", "copy_paste"]
    assert statuses(campaign(space={"copy_paste": {"start": 0.3}}), {"classes": 3, "polygons": True})["copy_paste"] == "moves"


def test_genes_that_the_scenario_or_another_gene_switches_off():
    assert statuses(campaign(base={"epochs": 1, "rect": True}))["mosaic"] == "inert"
    assert statuses(campaign(base={"epochs": 1, "anchors": "stock"}))["anchors"] == "inert"
    space = {"mosaic": {"start": 0}, "mixup": {"start": 0.5}, "warmup_epochs": {"start": 0}, "iou_t": {"gain": 1}}
    report = statuses(campaign(space=space))
    assert [name for name, status in report.items() if status == "inert"] == [
        "warmup_momentum",
        "warmup_bias_lr",
        "iou_t",
        "mixup",
    ]


def test_nothing_is_claimed_of_another_trainer():
    report = statuses(campaign(trainer={"python": "m:f"}, space={"iou_t": {"gain": 1}, "cls": {"start": 1}}), {"classes": 1})
    assert set(report.values()) == {"moves"}


def test_notes_on_single_genes():
    notes = {gene.name: gene.note for gene in preflight(campaign()).genes}
    assert notes["weight_decay"] == "about 101 values, since children are rounded to 5 decimals"
    assert notes["mosaic"] == "starts on its upper bound"
    assert notes["warmup_epochs"] == "acts up to 3.33, a third of the epochs"
    chosen = preflight(campaign(space={"optimizer": ["SGD", "AdamW"]})).genes
    assert {gene.name: gene.note for gene in chosen}["optimizer"] == "0 to 1 stand for SGD, AdamW"
    # A long training notices all of its range; of another trainer nothing is known.
    for other in (campaign(base={"epochs": 15}), campaign(trainer={"python": "m:f"})):
        assert {gene.name: gene.note for gene in preflight(other).genes}["warmup_epochs"] == ""


def test_unknown_facts_are_refused():
    with pytest.raises(ValueError, match="fact 'clases' is unknown; known: classes, polygons"):
        preflight(campaign(), {"clases": 1})
