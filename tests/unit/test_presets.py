"""A preset is a campaign file that reads at once and is the evolution of its program: genes, bounds, fitness, files."""

import pytest

from evolution import earlier_results, result_files
from evolution.campaign import Campaign
from evolution.hyperparameters import lineage_space
from evolution.preflight import preflight
from evolution.presets import ALL, PRESETS, preset
from evolution.strategy import NAMES, create

SCENARIO = {"epochs": 3, "model": "yolov5n"}


def no_files(name):
    raise FileNotFoundError(name)


def read(name, **changes):
    return Campaign.read(preset(name, name_of_campaign="tiny", data="d.yaml", **changes), "c.yaml", no_files)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_read(name):
    campaign = read(name, base=SCENARIO, candidates=9)
    assert campaign.space.names == lineage_space(campaign.lineage).names
    assert campaign.strategy == name
    assert campaign.options == create(name, {}).options
    assert campaign.weights == ALL[name].fitness
    assert (campaign.candidates, campaign.epochs, campaign.base["data"]) == (9, 3, "d.yaml")
    assert {gene.scale for gene in campaign.space} == {gene.scale for gene in lineage_space(campaign.lineage)}


def test_every_strategy_has_a_preset():
    assert set(PRESETS) == set(NAMES)


# Of each program: which genes move under its own rule, its fitness, and what its base scenario trains.
def moving(name):
    return [gene.name for gene in preflight(read(name)).genes if gene.status in ("moves", "inert")]


@pytest.mark.parametrize(
    ("name", "moves", "weights", "base"),
    [
        ("yolov3-2019", 17, {"map50": 0.5, "f1": 0.5}, ("yolov3-spp", 1, 320, 64)),
        ("yolov3-2020", 16, {"map50": 0.8, "f1": 0.2}, ("yolov3-spp", 273, 416, 16)),
        ("yolov5-2021", 20, {"map50": 0.1, "map50_95": 0.9}, ("yolov5s", 10, 640, 16)),
        ("yolov5-2024", 13, {"map50": 1.0}, ("yolov5s", 10, 640, 16)),
        ("ultralytics-2026", 21, {"map50_95": 1.0}, ("yolov5n", 10, 640, 16)),
        ("hybrid", 28, {"map50": 0.1, "map50_95": 0.9}, ("yolov5n", 10, 640, 16)),
    ],
)
def test_a_preset_is_its_programs_evolution(name, moves, weights, base):
    campaign = read(name)
    assert len(moving(name)) == moves
    assert campaign.weights == weights
    assert tuple(campaign.base[key] for key in ("model", "epochs", "imgsz", "batch")) == base


def test_single_numbers_of_the_programs():
    assert read("yolov5-2021").space["lrf"].start == 0.2
    assert moving("yolov5-2024") == [gene.name for gene in lineage_space()][16:]  # the augmentation genes
    tuned = read("ultralytics-2026").space
    assert (tuned["momentum"].gain, tuned["momentum"].lower, tuned["lr0"].upper, tuned["scale"].upper) == (0.3, 0.7, 0.01, 0.95)
    assert {gene.name for gene in tuned if gene.fixed} >= {"obj", "anchors", "iou_t", "cls_pw", "warmup_bias_lr"}
    assert read("yolov3-2019").space["momentum"].upper == 0.97
    assert read("yolov3-2020").options == {"parent": "single", "method": 2, "faithful": False}


def test_the_files_are_laid_out_as_the_programs_did():
    old = read("yolov3-2019")
    metrics = {"precision": 0.5, "recall": 0.25, "map50": 0.4, "map50_95": 0.2, "f1": 0.333, "val_box": 1.0, "val_obj": 2.0}
    row = result_files.ResultRow(0, old.space.decode(old.space.start), metrics | {"val_cls": 0.5}, 0.4)
    text = "".join(result_files.evolve_txt(old.space, [row], "yolov3-2019"))
    assert text.startswith("        0.5       0.25        0.4      0.333        3.5        1.2       4.06")
    assert len(text.split()) == 5 + 18
    (again,) = earlier_results.read_result_file("evolve.txt", text, old.space, "yolov3-2019")
    assert again.metrics == {"precision": 0.5, "recall": 0.25, "map50": 0.4, "f1": 0.333, "val_loss": 3.5}
    newer = read("yolov3-2020")
    row = result_files.ResultRow(0, newer.space.start, metrics | {"val_cls": 0.5}, 0.4)
    text = "".join(result_files.evolve_txt(newer.space, [row], "yolov3-2020"))
    assert text.startswith("       0.5      0.25       0.4     0.333         1         2       0.5      3.54")
    with pytest.raises(earlier_results.InvalidResultFile, match="23 columns are 7 results and 16 hyps, the space has 18 genes"):
        earlier_results.read_result_file("evolve.txt", "0.1 " * 23, newer.space, "yolov3-2020")


def test_tune_results_have_a_line_for_each_candidate():
    space = read("ultralytics-2026").space
    rows = [result_files.ResultRow(n, space.start, {"map50_95": 0.1 * n, "f1": 0.2}, 0.1 * n) for n in (0, 1)]
    first, second = "".join(result_files.tune_results(space, rows, "d.yaml")).splitlines()
    assert first.startswith('{"iteration": 1, "fitness": 0.0, "hyperparameters": {"lr0": 0.01, ')
    assert '"datasets": {"d.yaml": {"metrics/mAP50-95(B)": 0.1}}' in second


@pytest.mark.parametrize("data", ["d.yaml", "my data/d.yaml", "C:\\x: #1.yaml", "no", "'", "数据.yaml", "123"])
def test_any_path_survives(data):
    campaign = Campaign.read(preset(PRESETS[0], name_of_campaign="123", data=data), "c.yaml", no_files)
    assert campaign.base["data"] == data
    assert campaign.name == "123"


def test_a_hyp_file_takes_the_place_of_the_defaults():
    text = preset(PRESETS[0], name_of_campaign="tiny", data="d.yaml", hyp="hyp.yaml")
    hyp = "".join(f"{gene.name}: {gene.start}\n" for gene in lineage_space()).replace("lr0: 0.01", "lr0: 0.02")
    assert Campaign.read(text, "c.yaml", {"hyp.yaml": hyp}.__getitem__).space["lr0"].start == 0.02


@pytest.mark.parametrize("name", PRESETS)
def test_every_gene_has_its_line_and_meaning(name):
    text = preset(name, name_of_campaign="tiny", data="d.yaml")
    for gene in lineage_space(ALL[name].lineage):
        assert f"# {gene.meaning}" in text
    assert max(map(len, text.splitlines())) <= 132


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match="preset 'yolov5-2020' is unknown; did you mean 'yolov5-2024'"):
        preset("yolov5-2020", name_of_campaign="a", data="d")
