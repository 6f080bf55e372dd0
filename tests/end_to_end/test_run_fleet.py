"""Many machines, here one: ``hypevolve serve``, ``create``, ``worker`` and what people ask a coordinator."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypevolve import cli
from hypevolve.client import Client

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
TOY = """
def train(ctx):
    quality = 1 - (ctx.hyp["x"] - 0.7) ** 2
    return {"precision": quality, "recall": quality, "map50": quality, "map50_95": quality / 2}
"""
CAMPAIGN = """
name: toy
base: {epochs: 3}
trainer: {python: "toy:train"}
hyp: hyp.yaml
space: {x: {gain: 1, min: 0.01, max: 1}, y: {gain: 1, min: 0.01, max: 1}}
budget: {candidates: 4}
"""
HYPEVOLVE = (sys.executable, "-P", "-m", "hypevolve")


@pytest.fixture
def url(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A coordinator started by the command line; the test's folder is the current one and HYPEVOLVE_URL is set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "hyp.yaml").write_text("x: 0.3\ny: 0.5\n")
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    with subprocess.Popen(
        [*HYPEVOLVE, "serve", "--port", "0", "--db", database_url, "--announce", "coordinator.json"]
    ) as server:
        try:
            give_up = time.monotonic() + DEADLINE_S
            while not Path("coordinator.json").exists() and server.poll() is None and time.monotonic() < give_up:
                time.sleep(0.02)
            found = str(json.loads(Path("coordinator.json").read_text())["url"])
            monkeypatch.setenv("HYPEVOLVE_URL", found)
            yield found
        finally:
            server.terminate()
    assert server.returncode == 0


def test_from_an_empty_coordinator_to_the_best_hyp_set(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def call(code: int, *arguments: str) -> tuple[str, str]:
        assert cli.main(arguments) == code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.out, captured.err

    out, err = call(0, "ls")
    assert (out, err) == ("", "no campaign yet; next: hypevolve create campaign.yaml\n")
    assert "no campaign is called 'toy'" in call(3, "show", "toy")[1]

    # The hyp file is read here: no worker and no coordinator ever opens it.
    assert f"created toy: 4 candidates; page: {url}/c/toy" in call(0, "create", "campaign.yaml")[1]
    assert "exists already, unchanged" in call(0, "create", "campaign.yaml")[1]
    Path("other.yaml").write_text(CAMPAIGN.replace("epochs: 3", "epochs: 4"))
    assert "base.epochs" in call(4, "create", "other.yaml")[1]
    assert "no candidate of 'toy' has finished yet" in call(3, "best", "toy")[1]
    assert "no candidate of 'toy' has finished yet" in call(3, "export", "toy", "--format", "hyp-yaml")[1]
    assert "toy is paused; 0 in training" in call(0, "pause", "toy")[1]
    assert "toy is running" in call(0, "resume", "toy")[1]
    said = call(0, "extend", "toy", "--candidates", "5", "--patience", "50", "--deadline", "2100-01-01T00:00Z")[1]
    assert (
        said == "toy has a budget of 5 candidates, until 2100-01-01T00:00+00:00, patience 50 (0 since the best); 0 are done\n"
    )
    assert "patience 50" in call(0, "show", "toy")[0]
    assert call(0, "extend", "toy", "--candidates", "4", "--patience", "none", "--deadline", "none")[1].count(",") == 0
    assert "say what changes" in call(2, "extend", "toy")[1]
    assert "no worker called 'n9'" in call(3, "drain", "--worker", "n9")[1]
    assert "known: evolve-csv" in call(2, "export", "toy", "--format", "xls")[1]

    command = [*HYPEVOLVE, "worker", url, "--name", "n1", "--folder", "state", "--devices", "cpu*2", "--until-idle", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=dict(os.environ))
    assert done.returncode == 0, done.stderr

    rows = [line.split("\t") for line in call(0, "ls")[0].splitlines()]
    assert rows[0][:4] == ["name", "state", "done", "planned"]
    assert rows[1][:6] == ["toy", "finished", "4", "4", "0", "0"]
    assert "candidates\t4 planned: 4 done; 0 lost on the way" in call(0, "show", "toy")[0].splitlines()
    document = json.loads(call(0, "show", "toy", "--json")[0])
    with Client(url) as client:
        assert document == client.campaign("toy").model_dump(mode="json")

    assert [line.split("\t")[0] for line in call(0, "workers")[0].splitlines()] == ["name", "n1"]
    assert "is done, so there is nothing to cancel" in call(4, "cancel", "toy", "0")[1]
    out, err = call(0, "best", "toy", "-n", "2", "-o", "hyp_evolved.yaml")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["rank", "1", "2"]
    assert err == "wrote hyp_evolved.yaml\n"
    assert call(0, "best", "toy", "-o", "-")[0] == Path("hyp_evolved.yaml").read_text()
    assert len(json.loads(call(0, "--json", "best", "toy", "-n", "3")[0])) == 3

    for form, name in (("evolve-csv", "evolve.csv"), ("evolve-txt", "evolve.txt"), ("evolve-png", "evolve.png")):
        call(0, "export", "toy", "--format", form)
        assert Path(name).stat().st_size > 0
    assert call(0, "export", "toy", "--format", "evolve-csv", "-o", "-")[0] == Path("evolve.csv").read_text()
    assert "cannot write" in call(1, "export", "toy", "--format", "evolve-csv", "-o", "no/such/folder.csv")[1]
