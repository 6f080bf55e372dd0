"""yolov5's files: the layout to the character, what readers accept, and the line that says what is wrong with a file."""

import io
import json

import numpy as np
import pytest
import yaml

from evolution.earlier_results import InvalidResultFile, read_result_file
from evolution.hyperparameters import lineage_space
from evolution.result_files import ResultRow, evolve_csv, evolve_txt, hyp_yaml, tune_results
from evolution.space import Gene, Space
from evolution.yaml import load

SPACE = Space((Gene("lr0", 0.01, 1, 1e-5, 0.1), Gene("momentum", 0.937, 0.3, 0.6, 0.98)))
METRICS = {
    "precision": 0.51234567,
    "recall": 0.25,
    "map50": 0.4,
    "map50_95": 0.2,
    "val_box": 0.05,
    "val_obj": 0.06,
    "val_cls": 0,
}
ROWS = [
    ResultRow(2, {"momentum": 0.9, "lr0": 1e-05}, METRICS, 0.3),
    ResultRow(0, {"momentum": 0.937, "lr0": 0.0123456789}, METRICS, 0.2),
    ResultRow(1, {"momentum": 0.9, "lr0": 1e-05}, METRICS, 0.3),
]


def test_evolve_csv_to_the_character():
    lines = "".join(evolve_csv(SPACE, ROWS[1:2])).splitlines()
    assert lines[0] == (
        "   metrics/precision,      metrics/recall,     metrics/mAP_0.5,metrics/mAP_0.5:0.95,"
        "        val/box_loss,        val/obj_loss,        val/cls_loss,                 lr0,            momentum"
    )
    assert lines[1] == (
        "             0.51235,                0.25,                 0.4,                 0.2,"
        "                0.05,                0.06,                   0,            0.012346,               0.937"
    )


def test_evolve_csv_keeps_the_order_of_its_rows():
    ordered = sorted(ROWS, key=lambda row: row.number)
    again = read_result_file("e.csv", "".join(evolve_csv(SPACE, ordered)), SPACE)
    assert [row.hyp["momentum"] for row in again] == [0.937, 0.9, 0.9]


def test_a_line_of_evolve_txt_is_there_once():
    lines = "".join(evolve_txt(SPACE, ROWS)).splitlines()
    assert lines == [
        "     0.512      0.25       0.4       0.2      0.05      0.06         0     1e-05       0.9",
        "     0.512      0.25       0.4       0.2      0.05      0.06         0    0.0123     0.937",
    ]
    assert np.loadtxt(io.StringIO("".join(evolve_txt(SPACE, ROWS))), ndmin=2).shape == (2, 9)


def test_missing_losses_are_nan():
    row = ResultRow(
        0, {"lr0": 0.01, "momentum": 0.9}, {k: METRICS[k] for k in ("precision", "recall", "map50", "map50_95")}, 0.2
    )
    text = "".join(evolve_csv(SPACE, [row]))
    assert text.count("nan") == 3
    assert set(read_result_file("e.csv", text, SPACE)[0].metrics) == set(row.metrics)


def test_hyp_yaml_is_numbers_for_every_reader():
    text = hyp_yaml("tiny", ROWS[0], 3, {"map50": 0.1, "map50_95": 0.9}, SPACE)
    assert yaml.safe_load(text) == load(text, "h") == {"lr0": 1e-05, "momentum": 0.9}
    assert "lr0: 1.0e-05\n" in text
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert head[1:5] == [
        "# Campaign: tiny",
        "# Best candidate: 2",
        "# Candidates done: 3",
        "# Fitness: 0.3 = 0.1*map50 + 0.9*map50_95",
    ]
    assert "metrics/mAP_0.5:0.95" in head[5]
    assert "0.51235" in head[6]


@pytest.mark.parametrize("value", [1e-5, 1e-300, 1e22, 1.5e-7, 0.1 + 0.2, 3.0, 0.0])
def test_hyp_yaml_is_exact(value):
    text = hyp_yaml("t", ResultRow(0, {"lr0": value, "momentum": 0.9}, {}, 0.1), 1, {"map50": 1}, SPACE)
    assert yaml.safe_load(text)["lr0"] == load(text, "h")["lr0"] == value


def test_csv_columns_are_found_by_name():
    header = "momentum , lr0,metrics/mAP_0.5,metrics/mAP_0.5:0.95,metrics/precision,metrics/recall,train/box_loss"
    text = f"{header}\n.9,.01,.4,.2,.5,.3,9\n"
    (row,) = read_result_file("e.csv", text, SPACE)
    assert row.hyp == {"lr0": 0.01, "momentum": 0.9}
    assert tuple(row.hyp) == SPACE.names
    assert row.metrics == {"precision": 0.5, "recall": 0.3, "map50": 0.4, "map50_95": 0.2}


def test_34_columns_against_28_genes():
    genes = Space(tuple(gene for gene in lineage_space() if gene.name != "copy_paste"))
    assert len(genes) == 28
    text = ("%10.3g" * 34) % tuple([0.1] * 34) + "\n"
    with pytest.raises(InvalidResultFile) as caught:
        read_result_file("evolve.txt", text, genes)
    assert str(caught.value) == (
        "evolve.txt: 34 columns are 7 results and 27 hyps, the space has 28 genes; "
        "yolov5 left anchors out of its files: add a column of 3 in its place, or use a hyp set without the gene"
    )


HEADER = "".join(evolve_csv(SPACE, []))
ROW = ",".join(["0.1"] * 9)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.csv", "", "e.csv: is empty; give an evolve.csv with a header and rows"),
        (
            "e.csv",
            HEADER.replace("momentum", "velocity"),
            "e.csv:1: no column for gene 'momentum'; add the column, with the value ",
        ),
        (
            "e.csv",
            HEADER.replace("metrics/recall", "x/recall"),
            "e.csv:1: no column 'metrics/recall'; give yolov5's evolve.csv",
        ),
        (
            "e.csv",
            HEADER.replace("\n", ",momentun\n"),
            "e.csv:1: column 'momentun' is no gene of the space; did you mean 'momentum'?",
        ),
        ("e.csv", HEADER.replace("\n", ",lr0\n"), "e.csv:1: column 'lr0' is there twice; keep one of them"),
        (
            "e.csv",
            HEADER + ROW + "\n" + ROW + ",1\n",
            "e.csv:3: 10 fields, the header has 9; remove the row, or restore the file",
        ),
        ("e.csv", HEADER + ROW.replace("0.1", "x", 1), "e.csv:2: 'x' is no number; restore the number, or remove the row"),
        ("e.csv", HEADER + "nan" + ROW[3:], "e.csv:2: 'precision' is not finite; remove the row: that training did not finish"),
        ("e.csv", HEADER + ROW[:-3] + "inf", "e.csv:2: 'momentum' is not finite; remove the row: that training did not finish"),
        (
            "e.txt",
            "1 2 3 4 5 6 7 8\n",
            "e.txt: 8 columns are 7 results and 1 hyps, the space has 2 genes; evolve with the genes of ",
        ),
        (
            "e.txt",
            "1 2 3 4 5 6 7 8 9 10\n",
            "e.txt: 10 columns are 7 results and 3 hyps, the space has 2 genes; evolve with the ",
        ),
        ("e.txt", "1 2 3 4 5 6 7 8 a\n", "e.txt:1: 'a' is no number; restore the number, or remove the row"),
        ("e.ndjson", "{}\n", "e.ndjson:1: is no result of `tune`: {hyperparameters, datasets}; restore the line"),
        (
            "e.ndjson",
            '{"hyperparameters": {"lr0": 0.1}, "datasets": {"a": {}}}\n',
            "e.ndjson:1: no value for gene 'momentum'; add the value that was trained with",
        ),
        ("e.json", "", "e.json: is none of .csv, .txt and .ndjson; give an evolve.csv, evolve.txt or tune_results.ndjson"),
    ],
)
def test_unusable_files_in_one_line(name, text, message):
    with pytest.raises(InvalidResultFile) as caught:
        read_result_file(name, text, SPACE)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_round_trip_keeps_what_the_digits_keep():
    for text, name, digits in (
        ("".join(evolve_csv(SPACE, ROWS)), "e.csv", 5),
        ("".join(evolve_txt(SPACE, ROWS)), "e.txt", 3),
        ("".join(tune_results(SPACE, ROWS, "coco128")), "tune_results.ndjson", 9),
    ):
        for row in read_result_file(name, text, SPACE):
            assert row.metrics["precision"] == float(f"{METRICS['precision']:.{digits}g}")


def test_trainings_that_did_not_finish_may_be_put_aside():
    unfinished = []
    text = HEADER + ROW + "\nnan" + ROW[3:] + "\n" + ROW + "\n"
    assert len(read_result_file("e.csv", text, SPACE, unfinished=unfinished)) == 2
    assert [str(problem) for problem in unfinished] == [
        "e.csv:3: 'precision' is not finite; remove the row: that training did not finish"
    ]
    assert len(read_result_file("e.csv", text, SPACE, required=["map50"])) == 3


def test_several_data_sets_are_averaged_and_a_failed_one_finished_nothing():
    both = {"metrics/precision(B)": 0.2, "metrics/recall(B)": 0.2, "metrics/mAP50(B)": 0.4, "metrics/mAP50-95(B)": 0.1}
    record = {"hyperparameters": {"lr0": 0.01, "momentum": 0.9}, "datasets": {"a": both, "b": both | {"metrics/mAP50(B)": 0.2}}}
    text = json.dumps(record) + "\n" + json.dumps(record | {"failed_datasets": ["b"]}) + "\n"
    unfinished = []
    (row,) = read_result_file("tune_results.ndjson", text, SPACE, unfinished=unfinished)
    assert row.metrics == pytest.approx({"precision": 0.2, "recall": 0.2, "map50": 0.3, "map50_95": 0.1})
    assert len(unfinished) == 1
