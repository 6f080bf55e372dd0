"""One training by each trainer, in this process: what becomes a result, what a failure, and of which kind."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evolution.campaign_reader import DETECTOR_BATCH, PLACEHOLDERS
from hypevolve.hashes import hyp_hash
from worker.training import run

HYP = {"lr0": 0.01, "degrees": 0.0}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mytrain", None)


def train(root: Path, trainer: dict[str, Any], **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How the training ended, and what it said on the way."""
    scratch = root / "scratch"
    scratch.mkdir(exist_ok=True)
    said: list[dict[str, Any]] = []
    assignment = {
        "token": "t", "hyp": HYP, "hyp_hash": hyp_hash(HYP), "base": {"imgsz": 320}, "trainer": trainer, "seed": 3, "epochs": 2,
        "weights": {"map50": 1.0}, "device": "cpu", "data_root": str(root), "dir": str(scratch), "name": "bccd-3",
        "checkpoint_s": 300.0, "data_hash": None, **more,
    }  # fmt: skip
    end = run(assignment, said.append, more.get("cancelled") or threading.Event())
    shutil.rmtree(scratch)
    return end, said


def python(root: Path, body: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (root / "mytrain.py").write_text(f"import os, sys\ndef train(ctx):\n{lines}\n")
    return train(root, {"kind": "python", "python": "mytrain:train"}, **more)


def test_a_function_gets_all_it_needs_and_returns_metrics(root: Path):
    end, said = python(
        root,
        "assert (ctx.epochs, ctx.device, ctx.seed, ctx.base) == (2, 'cpu', 3, {'imgsz': 320})\n"
        "(ctx.dir / 'weights').write_text('x')\n"
        "for e in range(ctx.epochs):\n"
        "    ctx.report(e, map50=ctx.hyp['lr0'] * e, broken=float('nan'), text='x')\n"
        "return {'map50': 0.25, 'precision': 0.5}",
    )
    assert end["say"] == "done"
    assert (end["metrics"], end["fitness"], end["epochs"]) == ({"map50": 0.25, "precision": 0.5}, 0.25, 2)
    assert end["hyp_hash"] == hyp_hash(HYP)
    assert [m for m in said if m["say"] == "epoch"] == [
        {"say": "epoch", "epoch": 0, "metrics": {"map50": 0.0}},
        {"say": "epoch", "epoch": 1, "metrics": {"map50": 0.01}},
    ]


@pytest.mark.parametrize(
    ("body", "kind", "detail"),
    [
        ("return {'map50': float('nan')}", "nan", "map50 = nan"),
        ("return {'map50': 1.0, 'val_box': float('inf')}", "nan", "val_box = inf"),
        ("return None", "data", "must return a mapping"),
        ("return {'map50': 'high'}", "data", "no number"),
        ("return {'recall': 0.5}", "data", "'map50' is missing"),
        ("ctx.hyp['lr0'] = 0.02\nreturn {'map50': 0.5}", "data", "changed ctx.hyp"),
        ("raise KeyError('boom')", "crash", "\nKeyError: 'boom' (mytrain.py:3)"),
        ("import json\njson.loads('{')", "crash", "double quotes: line 1 column 2 (char 1) (mytrain.py:4)"),
        ("compile('x = (', 'made.py', 'exec')", "crash", "SyntaxError: '(' was never closed (made.py:1)"),
        ("sys.exit(3)", "crash", "SystemExit: 3 (mytrain.py:3)"),
        ("raise MemoryError", "oom", "MemoryError"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate')", "oom", "CUDA"),
    ],
)
def test_failures_of_a_function(root: Path, body: str, kind: str, detail: str):
    end, _ = python(root, body)
    assert (end["say"], end["kind"]) == ("failed", kind)
    assert detail in end["detail"]


def test_a_cancelled_function_stops_at_its_next_report_even_if_it_catches_exceptions(root: Path):
    cancelled = threading.Event()
    cancelled.set()
    body = "try:\n    ctx.report(0, map50=0.1)\nexcept Exception:\n    pass\nreturn {'map50': 1}"
    end, _ = python(root, body, cancelled=cancelled)
    assert end == {"say": "cancelled"}


def test_what_a_node_lacks_is_not_the_candidates_fault(root: Path):
    end, _ = train(root, {"kind": "python", "python": "nowhere:train"})
    assert (end["say"], "put nowhere.py into" in end["detail"]) == ("not_installed", True)
    end, _ = train(root, {"kind": "quantum"})
    assert end["say"] == "not_installed"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def trian(ctx):\n    pass\n", ("mytrain.py has no train; did you mean trian?",)),
        ("x = 1\n", ("mytrain.py has no train; define train(ctx) there",)),
        ("train = 3\n", ("mytrain.py: train is 3, which cannot be called",)),
        ("def train(ctx):\n    return {\n", ("SyntaxError: '{' was never closed (mytrain.py:2)", "correct the module")),
        ("\nimport sys\nsys.nowhere()\n", ("AttributeError: module 'sys' has no attribute 'nowhere' (mytrain.py:3)",)),
        ("raise SystemExit('usage')", ("SystemExit: usage (mytrain.py:1)",)),
    ],
)
def test_a_module_that_cannot_be_used_is_not_the_candidates_fault(root: Path, source: str, words: tuple[str, ...]):
    (root / "mytrain.py").write_text(source)
    end, _ = train(root, {"kind": "python", "python": "mytrain:train"})
    assert (end["say"], end["reason"]) == ("not_installed", "not_installed")
    assert end["detail"].startswith("trainer python mytrain:train: ")
    assert "\n" not in end["detail"]
    for word in words:
        assert word in end["detail"]


@pytest.mark.parametrize(("key", "base"), [("data", {}), ("weights", {"data": "data.yaml", "weights": "best.pt"})])
def test_data_that_is_not_on_this_node_is_not_the_candidates_fault(root: Path, key: str, base: dict[str, Any]):
    pytest.importorskip("torch")
    (root / "data.yaml").write_text("names: [a]\n")
    base = {"data": "digits/data.yaml", "imgsz": 32, **base}
    end, _ = train(root, {"kind": "detector"}, base=base)
    assert (end["say"], end["reason"]) == ("not_installed", "no_data")
    assert end["detail"].startswith(
        f"base.{key}: {root / base[key]} does not exist; start the worker with the --data-root that"
    )


def test_what_is_wrong_inside_the_data_is_a_failure(root: Path):
    pytest.importorskip("torch")
    (root / "data.yaml").write_text("names: [a]\n")
    end, _ = train(root, {"kind": "detector"}, base={"data": "data.yaml", "imgsz": 32})
    assert (end["say"], end["kind"]) == ("failed", "data")


def test_a_detector_on_a_gpu_that_is_not_there_is_not_the_candidates_fault(root: Path):
    torch = pytest.importorskip("torch")
    end, _ = train(root, {"kind": "detector"}, device="cuda:99")
    assert end["say"] == "not_installed"
    assert end["detail"].startswith(f"--devices: cuda:99 is not there; torch {torch.__version__} sees ")


def test_a_detector_without_torch_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "detector.trainer", raising=False)
    end, _ = train(root, {"kind": "detector"})
    assert end["say"] == "not_installed"
    assert "hypevolve[worker]" in end["detail"]


PROGRAM = """
import json, sys, time, pathlib, yaml
hyp, folder, results = sys.argv[1:4]
assert yaml.safe_load(open(hyp)) == {"lr0": 0.01, "degrees": 0.0}, open(hyp).read()
assert sys.argv[4:] == ["2", "cpu", "3", "bccd-3", "{other}"], sys.argv
pathlib.Path(folder, "results.csv").write_text(
    "epoch, train/box_loss, metrics/precision, metrics/recall, metrics/mAP_0.5, metrics/mAP_0.5:0.95, val/box_loss, x/lr0\\n"
    "0, 0.2, 0.1, 0.2, 0.3, 0.1, 0.09, 0.01\\n"
    "1, 0.1, 0.5, 0.6, 0.7, 0.4, 0.08, 0.01\\n")
pathlib.Path(folder, "out.json").write_text(json.dumps({"map50": 0.75}))
"""


@pytest.mark.parametrize("results", ["results.csv", "out.json"])
def test_a_program_is_run_and_its_results_file_read(root: Path, results: str):
    (root / "program.py").write_text(PROGRAM)
    argv = [sys.executable, "program.py", "{hyp}", "{dir}", results, "{epochs}", "{device}", "{seed}", "{name}", "{other}"]
    end, said = train(root, {"kind": "command", "command": argv, "results": results})
    assert end["say"] == "done", end
    if results.endswith(".json"):
        assert end["metrics"] == {"map50": 0.75}
        return
    assert end["metrics"] == {
        "train_box": 0.1, "precision": 0.5, "recall": 0.6, "map50": 0.7, "map50_95": 0.4, "val_box": 0.08,
    }  # fmt: skip
    assert [m["metrics"]["map50"] for m in said if m["say"] == "epoch"] == [0.3, 0.7]


@pytest.mark.parametrize(
    ("script", "kind", "detail"),
    [
        ("print('bad flag'); raise SystemExit(2)", "exit_code", "exit code 2: bad flag\nbad flag"),
        ("raise SystemExit(3)", "exit_code", "the program ended with exit code 3"),
        ("raise SystemExit('torch.cuda.OutOfMemoryError: CUDA out of memory')", "oom", "exit code 1"),
        ("pass", "data", "wrote no out.json"),
        ("open(sys.argv[1], 'w').write(json.dumps({'map50': float('nan')}))", "nan", "map50 = nan"),
        ("open(sys.argv[1], 'w').write('map50: 1')", "data", "no JSON"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit_code", "SIGSEGV"),
    ],
)
def test_failures_of_a_program(root: Path, script: str, kind: str, detail: str):
    argv = [sys.executable, "-c", f"import sys, json\n{script}", "{dir}/out.json"]
    end, _ = train(root, {"kind": "command", "command": argv, "results": "out.json"})
    assert (end["say"], end.get("kind")) == ("failed", kind)
    assert detail in end["detail"]


@pytest.mark.parametrize(
    ("argv", "detail"),
    [
        (["no-such-program"], "trainer command: cannot start no-such-program: "),  # why depends on the folders on PATH
        (["python3", "nowhere.py"], "nowhere.py does not exist; start the worker with the --data-root that holds nowhere.py"),
    ],
)
def test_a_program_that_is_not_there_is_not_the_candidates_fault(root: Path, argv: list[str], detail: str):
    end, _ = train(root, {"kind": "command", "command": argv, "results": "out.json"})
    assert end["say"] == "not_installed"
    assert detail in end["detail"]
    assert "--data-root" in end["detail"]


def test_every_placeholder_that_a_campaign_may_name_is_filled_in(root: Path):
    script = (
        "import sys, json; print(sys.argv[2:]); json.dump({'map50': 1}, open(sys.argv[1], 'w')); sys.exit('{' in str(sys.argv))"
    )
    argv = [sys.executable, "-c", script.replace("'{'", "chr(123)"), "{dir}/o.json", *(f"{{{name}}}" for name in PLACEHOLDERS)]
    end, _ = train(root, {"kind": "command", "command": argv, "results": "o.json"})
    assert end["say"] == "done", end


def test_a_command_of_an_old_campaign_without_results(root: Path):
    end, _ = train(root, {"kind": "command", "command": ["true"], "results": None})
    assert (end["kind"], end["detail"]) == ("data", "trainer results is absent; give the file that the command writes")


def test_a_program_ended_from_outside_is_no_failure(root: Path):
    argv = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"]
    end, _ = train(root, {"kind": "command", "command": argv, "results": "out.json"})
    assert end["say"] == "interrupted"


def test_the_number_of_metrics_is_bounded(root: Path):
    end, _ = python(root, "return {f'm{i}': 1.0 for i in range(70)}")
    assert (end["kind"], "at most 64" in end["detail"]) == ("data", True)


def test_a_gene_takes_the_place_of_the_base_scenarios_key(root: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def trained(hyp, scenario, **more):
        seen.append((hyp.lr0, scenario.optimizer, scenario.rect))
        raise ValueError("seen enough")

    dataset = types.SimpleNamespace(data_hash="0" * 64)
    monkeypatch.setattr("detector.cache.load_cached", lambda *_: types.SimpleNamespace(dataset=dataset))
    monkeypatch.setattr("detector.trainer.train", trained)
    (root / "data.yaml").write_text("")
    hyp = {"lr0": 0.02, "optimizer": "SGD", "rect": True}
    base = {"data": "data.yaml", "optimizer": "AdamW", "imgsz": 64}
    end, _ = train(root, {"kind": "detector"}, hyp=hyp, hyp_hash=hyp_hash(hyp), base=base)
    assert seen == [(0.02, "SGD", True)], end


def test_the_genes_that_stand_for_keys_of_the_scenario_have_its_values():
    from detector import scenario
    from evolution.hyperparameters import SCENARIO_GENES

    assert SCENARIO_GENES["optimizer"] == scenario.OPTIMIZERS
    assert set(SCENARIO_GENES) <= {field.name for field in dataclasses.fields(scenario.Scenario)}
    assert scenario.Scenario(data="x").batch == DETECTOR_BATCH


@pytest.mark.parametrize(("batch", "devices", "size"), [(16, 1, 1), (16, 2, 2), (16, 3, 2), (10, 4, 2), (9, 2, 1), (8, 8, 8)])
def test_a_team_is_as_large_as_the_batch_can_be_shared(batch: int, devices: int, size: int):
    pytest.importorskip("torch")
    from detector.scenario import Scenario
    from worker.builtin import team_size

    assert team_size(["cuda:0"] * devices, Scenario(data="x", batch=batch)) == size
    assert team_size(["mps"] * devices, Scenario(data="x", batch=batch)) == 1
