"""The command line as people type it, as far as it goes without a coordinator: exit codes, streams, files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evolution.hyperparameters import lineage_space
from evolution.result_files import COLUMNS, ResultRow, evolve_csv
from hypevolve import cli, programs

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGN = """\
name: toy
base: {epochs: 3}
trainer: {python: "toy:train"}
hyp: {x: 0.5, y: 0.0, z: 0.5}
space: {x: {gain: 1, min: 0.01, max: 1}, y: {gain: 1, min: 0, max: 1}, z: {gain: 0, min: 0, max: 1}}
evolve: {strategy: yolov5-2021}
budget: {candidates: 4}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYPEVOLVE_URL", raising=False)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    return tmp_path


def _process(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "hypevolve", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, ""),
        ([], 0, ""),
        (["nonsense"], 2, "No such command 'nonsense'."),
        (["show"], 2, "Missing argument 'NAME'."),
        (["run", "campaign.yaml", "--workers", "0"], 2, "Invalid value for '--workers'"),
        (["run", "no-such.yaml"], 3, "hypevolve init -o no-such.yaml"),
        (["validate", "no-such.yaml"], 3, "there is no no-such.yaml"),
        (["--url", "ftp://x", "ls"], 5, "no URL of a coordinator"),
        (["--url", "http://127.0.0.1:1", "ls"], 7, "no answer from the coordinator at http://127.0.0.1:1"),
        (["worker"], 2, "give the coordinator's URL"),
        (["serve", "--prot", "80"], 2, "unrecognized arguments: --prot"),
    ],
)
def test_exit_codes_and_one_line_without_a_traceback(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = _process(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    if code and arguments[0] not in cli.PASSED_ON:
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("hypevolve: ")


def test_a_pipe_that_is_closed_early_is_no_error() -> None:
    command = f"{sys.executable} -m hypevolve --help | true"
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60).stderr == ""


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        (["ls", "--json"], ["--json", "ls"]),
        (["best", "toy", "--url", "http://h", "-n", "2"], ["--url", "http://h", "best", "toy", "-n", "2"]),
        (["show", "toy", "--url=http://h", "-v"], ["--url=http://h", "-v", "show", "toy"]),
        (["worker", "http://h", "--json"], ["worker", "http://h", "--json"]),
        (["show", "--", "--json"], ["show", "--", "--json"]),
        (["ls", "--url"], ["ls", "--url"]),
    ],
)
def test_global_options_may_stand_behind_the_command(given: list[str], moved: list[str]) -> None:
    assert cli.globals_first(given) == moved


def test_an_unexpected_error_is_one_line_and_a_traceback_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the moon\nis full")

    monkeypatch.setattr("hypevolve.online.ls", broken)
    assert cli.main(["ls"]) == 1
    line = "hypevolve: unexpected RuntimeError: the moon is full; -v shows where it came from\n"
    assert capsys.readouterr().err == line
    assert cli.main(["ls", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_written_campaign_file_is_valid_and_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["init", "--data", "sets/bccd/data.yaml", "--candidates", "20", "-o", "new.yaml"]
    assert cli.main(command) == 0
    written = (here / "new.yaml").read_text()
    assert "name: bccd-yolov5n" in written
    assert "candidates: 20" in written
    assert cli.main(["validate", "new.yaml"]) == 0
    capsys.readouterr()
    assert cli.main(command) == 4
    assert "--force" in capsys.readouterr().err
    assert cli.main([*command, "--force", "--name", "other"]) == 0
    assert "name: other" in (here / "new.yaml").read_text()


def test_init_names_hyp_file_and_data_from_the_campaign_files_folder(here: Path) -> None:
    start = lineage_space().start | {"lr0": 0.02}
    (here / "hyp.yaml").write_text("".join(f"{name}: {value}\n" for name, value in start.items()))
    (here / "data.yaml").touch()
    assert cli.main(["init", "--from", "hyp.yaml", "--data", "data.yaml", "-o", "campaigns/new.yaml"]) == 0
    written = (here / "campaigns/new.yaml").read_text().replace('"', "")
    assert "hyp: ../hyp.yaml" in written
    assert "data: ../data.yaml" in written


def test_init_leaves_nothing_behind_that_validate_would_refuse(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "evolve.csv").write_text("nonsense,header\n1,2\n")
    assert cli.main(["init", "--from", "evolve.csv", "-o", "new.yaml"]) == 5
    assert "evolve.csv" in capsys.readouterr().err
    assert not (here / "new.yaml").exists()
    assert cli.main(["init", "--from", "nowhere.yaml", "-o", "new.yaml"]) == 3
    assert cli.main(["init", "--preset", "yolov9", "-o", "new.yaml"]) == 2


def test_init_takes_the_rows_of_an_earlier_evolution(here: Path) -> None:
    space = lineage_space()
    row = ResultRow(0, space.start, dict.fromkeys(COLUMNS.values(), 0.5), 0.5)
    (here / "evolve.csv").write_text("".join(evolve_csv(space, [row])))
    assert cli.main(["init", "--from", "evolve.csv", "-o", "new.yaml"]) == 0
    assert "seed_from" in (here / "new.yaml").read_text()


def test_validate_says_what_each_gene_will_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "campaign.yaml"]) == 0
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert rows[0] == ["name", "start", "gain", "lower", "upper", "status", "note"]
    assert [(row[0], row[5]) for row in rows[1:]] == [("x", "moves"), ("y", "stuck at 0"), ("z", "fixed")]
    assert "3 genes: 1 move, 1 fixed, 1 stuck at 0" in captured.err
    assert "4 trainings x 3 epochs" in captured.err
    assert "not checked: the data, which trainer python reads itself" in captured.err


def test_validate_prints_one_document_where_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "campaign.yaml", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [gene["status"] for gene in document["genes"]] == ["moves", "stuck at 0", "fixed"]
    assert captured.err == ""


def test_an_invalid_campaign_is_a_line_for_each_fault(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "campaign.yaml").write_text(CAMPAIGN.replace("epochs: 3", "epochs: no").replace("budget", "bugdet"))
    assert cli.main(["validate", "campaign.yaml"]) == 5
    first, second = capsys.readouterr().err.splitlines()
    assert "campaign.yaml:2 base.epochs" in first
    assert "did you mean 'budget'?" in second


DETECTOR = "name: d\nbase: {data: data.yaml, epochs: 1, imgsz: 64, batch: 2}\n"


def test_data_that_is_not_there_cannot_be_checked_and_cannot_be_trained_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    (here / "campaign.yaml").write_text(DETECTOR)
    assert cli.main(["validate", "campaign.yaml"]) == 0
    assert f"not checked: base.data: {here / 'data.yaml'} does not exist" in capsys.readouterr().err
    assert cli.main(["run", "campaign.yaml"]) == 5
    assert "data.yaml does not exist" in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_a_base_scenario_that_the_detector_refuses_is_invalid(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    (here / "campaign.yaml").write_text(DETECTOR.replace("imgsz: 64", "imgsz: 65"))
    assert cli.main(["validate", "campaign.yaml"]) == 5
    assert "base.imgsz is 65" in capsys.readouterr().err


def test_validate_looks_at_data_that_is_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from detector import digits

    digits.write(here / "digits", counts={"train": 4, "val": 2})
    (here / "campaign.yaml").write_text(DETECTOR.replace("data.yaml", "digits/data.yaml"))
    assert cli.main(["validate", "campaign.yaml"]) == 0
    captured = capsys.readouterr()
    assert "data: 4 training and 2 validation images, 3 classes, no polygons, 2 iterations a training" in captured.err
    assert "copy_paste\t0\t" in captured.out


def test_without_our_programs_a_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    for command in (["serve"], ["worker", "http://h"], ["run", "c.yaml"], ["demo"], ["validate", "c.yaml"], ["init"]):
        assert cli.main(command) == 1
        assert "pip install -e '.[" in capsys.readouterr().err
