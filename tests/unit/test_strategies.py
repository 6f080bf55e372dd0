"""Strategies that are not ours, and the promises that every strategy keeps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evolution.campaign import Campaign
from evolution.hyperparameters import lineage_space
from evolution.strategy import NAMES, Elsewhere, History, OptionError, Proposal, Row, Wait, candidate_rng
from hypevolve import cli
from server import strategies
from server.strategy_check import KINDS, check

DOCUMENT = Path(__file__).parents[2] / "docs" / "STRATEGIES.md"
BROKEN = """
import numpy
from evolution.strategy import Needs, Proposal

def needs(options):
    return Needs(fittest=5)

def propose(space, history, rng, options):
    return Proposal({gene.name: gene.lower + numpy.random.random() for gene in space}, ())
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Packages with entry points, as pip leaves them."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    (example,) = [block for block in blocks if "halfway.py" in block]
    for name, text in (("halfway", example), ("broken", BROKEN)):
        (tmp_path / f"{name}.py").write_text(text)
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{strategies.GROUP}]\n{name} = {name}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    for name in ("halfway", "broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_ours_keep_their_promises(name):
    faults = [(promise, fault) for promise, fault in check(strategies.create(name, {})) if fault and "second" not in promise]
    assert faults == []


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_optuna_keeps_them(sampler):
    pytest.importorskip("optuna", reason="NO OPTUNA: install the extra hypevolve[optuna]")
    strategy = strategies.create(f"optuna:{sampler}", {})
    assert [(promise, fault) for promise, fault in check(strategy) if fault and "second" not in promise] == []


def test_optuna_learns_from_the_rows():
    pytest.importorskip("optuna", reason="NO OPTUNA: install the extra hypevolve[optuna]")
    strategy, rows = strategies.create("optuna:tpe", {}), []
    for number in range(60):
        hyp = strategy.propose(KINDS, History.select(number, strategy.needs, rows), candidate_rng(0, number)).hyp
        rows.append(Row(number, hyp, -abs(hyp["degrees"] - 40) - 20 * (hyp["optimizer"] != 1)))
    assert np.mean([row.hyp["degrees"] for row in rows[-15:]]) > 30
    assert np.mean([row.hyp["optimizer"] == 1 for row in rows[-15:]]) > 0.6
    with pytest.raises(OptionError, match="'optuna:cma' is unknown; available: optuna:tpe, optuna:random"):
        strategies.create("optuna:cma", {})


def test_optuna_brings_no_torch_into_the_coordinator():
    pytest.importorskip("optuna", reason="NO OPTUNA: install the extra hypevolve[optuna]")
    program = """
import sys
from server import optuna_strategy, strategies
from server.strategy_check import check
for sampler in optuna_strategy.SAMPLERS:
    assert next(check(strategies.create(f"optuna:{sampler}", {})))[1] == ""
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=DOCUMENT.parents[1]).returncode == 0


def test_the_documents_example_keeps_them(installed, capsys):
    assert cli.main(["check-strategy", "own:halfway", "--json"]) == 0
    assert {promise["fault"] for promise in json.loads(capsys.readouterr().out)["promises"]} == {None}
    strategy = strategies.create("own:halfway", {"noise": 0.0})
    rows = [Row(i, {**KINDS.start, "degrees": float(i)}, i / 10) for i in range(4)]
    child = strategy.propose(KINDS, History.select(4, strategy.needs, rows), candidate_rng(0, 4))
    assert (child.hyp["degrees"], child.parents) == (2.5, (3, 2))
    with pytest.raises(OptionError, match="own:halfway refuses its options: halfway takes noise"):
        strategies.create("own:halfway", {"loud": 1})


def test_what_breaks_them_is_told_and_harms_nobody(installed, capsys):
    assert cli.main(["check-strategy", "own:broken"]) == 1
    assert "own:broken breaks" in capsys.readouterr().err
    answer = strategies.create("own:broken", {}).propose(lineage_space(), History(1), candidate_rng(0, 1))
    assert isinstance(answer, Wait)
    assert "is not inside the space" in answer.reason
    assert cli.main(["check-strategy", "own:nobody"]) == 2
    assert "installed: broken, halfway" in capsys.readouterr().err


def test_a_campaign_names_them_and_only_the_coordinator_has_them():
    campaign = Campaign.from_document(
        {"name": "a", "base": {"epochs": 1}, "evolve": {"strategy": "own:mine", "noise": 0.1, "deep": [1, {"x": None}]}}
    )
    assert campaign.options == {"noise": 0.1, "deep": [1, {"x": None}]}
    assert Campaign.from_document(json.loads(json.dumps(campaign.to_document()))) == campaign
    with pytest.raises(NotImplementedError, match="own:mine is loaded by the coordinator"):
        Elsewhere("own:mine", {}).propose(KINDS, History(1), candidate_rng(0, 1))


def test_an_odd_answer_is_a_reason_to_wait():
    class Odd:
        def needs(self, options):
            return None

        def propose(self, space, history, rng, options):
            return options["answer"]

    for answer, reason in ((None, "it answered NoneType"), (Proposal({}, ()), "is not inside the space")):
        adapted = strategies.Adapted("own:odd", Odd(), {"answer": answer})
        assert reason in adapted.propose(KINDS, History(1), candidate_rng(0, 1)).reason
