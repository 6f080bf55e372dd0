"""A preset is a campaign file that reads at once, and says what its defaults already are."""

import pytest

from evolution.campaign import Campaign
from evolution.hyperparameters import lineage_space
from evolution.presets import PRESETS, preset
from evolution.strategy import create


def no_files(name):
    raise FileNotFoundError(name)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_read(name):
    campaign = Campaign.read(preset(name, name_of_campaign="tiny", data="d.yaml", epochs=3, candidates=9), "c.yaml", no_files)
    assert campaign.space == lineage_space()
    assert campaign.strategy == name
    assert campaign.options == create(name, {}).options
    assert (campaign.candidates, campaign.epochs, campaign.base["data"]) == (9, 3, "d.yaml")


@pytest.mark.parametrize("data", ["d.yaml", "my data/d.yaml", "C:\\x: #1.yaml", "no", "'", "数据.yaml", "123"])
def test_any_path_survives(data):
    campaign = Campaign.read(preset(PRESETS[0], name_of_campaign="123", data=data), "c.yaml", no_files)
    assert campaign.base["data"] == data
    assert campaign.name == "123"


def test_a_hyp_file_takes_the_place_of_the_defaults():
    text = preset(PRESETS[0], name_of_campaign="tiny", data="d.yaml", hyp="hyp.yaml")
    hyp = "".join(f"{gene.name}: {gene.start}\n" for gene in lineage_space()).replace("lr0: 0.01", "lr0: 0.02")
    assert Campaign.read(text, "c.yaml", {"hyp.yaml": hyp}.__getitem__).space["lr0"].start == 0.02


def test_every_gene_has_its_line_and_meaning():
    text = preset(PRESETS[0], name_of_campaign="tiny", data="d.yaml")
    for gene in lineage_space():
        assert f"# {gene.meaning}" in text


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match="preset 'yolov5-2020' is unknown; did you mean 'yolov5-2021'"):
        preset("yolov5-2020", name_of_campaign="a", data="d")
