"""The command trainer: any program, run as a subprocess in its own environment, never imported.

    trainer: {command: [python, train.py, --hyp, "{hyp}", --epochs, "{epochs}", --project, "{dir}", --name, run], results: run/results.csv}

``results`` is a JSON object of metrics, or a results.csv as yolov5 and ultralytics write it, whose rows are posted as epochs while
they appear.
"""  # noqa: E501 - one line of YAML, as one would write it

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hypevolve.messages import FailureKind
from worker.context import Context
from worker.errors import Interrupted, NotInstalled, TrainingFailed
from worker.parent import die_with_parent

_LOOK_S = 0.25
_GRACE_S = 2.0  # from SIGTERM to SIGKILL
_LOG_LINES = 20
_LOG_CHARACTERS = 7000  # of the 8000 that the protocol takes
_LINE_CHARACTERS = 300
_COLUMNS = {
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "metrics/mAP_0.5": "map50",
    "metrics/mAP50": "map50",
    "metrics/mAP_0.5:0.95": "map50_95",
    "metrics/mAP50-95": "map50_95",
}


def train(trainer: Mapping[str, Any], context: Context) -> dict[str, float]:
    """Run the program to its end and read its metrics.

    Raises:
        TrainingFailed: exit_code with the end of what it printed, oom, or data where there are no results.
        NotInstalled: the program is not on this node.
        Interrupted: it was ended by a signal that asks programs to end.
        Cancelled: the training was told to stop; the program and all it started are gone.
    """
    if not trainer.get("results"):
        raise TrainingFailed("data", "trainer results is absent; give the file that the command writes")
    results = context.dir / str(trainer["results"])
    log = context.dir / "log.txt"
    argv = _argv(trainer, context)
    _look_for_script(argv, context)
    with log.open("wb") as output:
        # Should the supervisor die now, this process must live on long enough to end the program's whole group.
        die_with_parent(os.getppid(), enabled=False)
        try:
            program = subprocess.Popen(
                argv,
                cwd=context.data_root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=functools.partial(die_with_parent, os.getpid()),
            )
        except OSError as error:
            die_with_parent(os.getppid())
            cause = f"cannot start {argv[0]}: {error.strerror}"
            if not isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError) and error.errno != errno.ENOEXEC:
                raise TrainingFailed("exit_code", cause) from error
            remedy = "install it, write its full path, or start the worker with another --data-root"
            raise NotInstalled(f"trainer command: {cause} (in {context.data_root}); {remedy}") from error
    context.say({"say": "group", "group": program.pid})
    try:
        _follow(program, results, context)
    finally:
        _stop(program)
        context.say({"say": "group", "group": None})
        die_with_parent(os.getppid())
    _judge(program.returncode, log)
    return _metrics(results)


def _argv(trainer: Mapping[str, Any], context: Context) -> list[str]:
    hyp = context.dir / "hyp.yaml"
    hyp.write_text(yaml.safe_dump(context.hyp, sort_keys=False))
    places = {
        "{hyp}": str(hyp),
        "{epochs}": str(context.epochs),
        "{device}": ",".join(context.devices),
        "{seed}": str(context.seed),
        "{dir}": str(context.dir),
        "{name}": context.name,
        "{checkpoint}": str(context.checkpoint),
    }
    template = trainer.get("command")
    if not isinstance(template, list) or not template:
        raise TrainingFailed("data", f"trainer command is {template!r:.100}; write a list, such as [python, train.py]")
    pattern = re.compile("|".join(map(re.escape, places)))  # other braces are the program's own
    return [pattern.sub(lambda match: places[match[0]], str(part)) for part in template]


def _look_for_script(argv: list[str], context: Context) -> None:
    """Python itself would only end with exit code 2, as programs do for many reasons."""
    if len(argv) > 1 and re.fullmatch(r"python[\d.]*", Path(argv[0]).name) and argv[1].endswith(".py"):
        script = context.data_root / argv[1]
        if not script.exists():
            remedy = f"start the worker with the --data-root that holds {argv[1]}, or put it there"
            raise NotInstalled(f"trainer command: {script} does not exist; {remedy}")


def _follow(program: subprocess.Popen[bytes], results: Path, context: Context) -> None:
    """Wait for the end; post the rows of a results.csv as they appear."""
    seen = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(_LOOK_S)
        if results.suffix == ".csv" and results.is_file():
            for row in list(_rows(results))[seen:]:
                context.report(seen, **row)
                seen += 1
        context.check()
        if program.returncode is not None:
            return


def _stop(program: subprocess.Popen[bytes]) -> None:
    """End the program and whatever it started: the whole process group."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(program.pid, ending)
        except ProcessLookupError:
            break
        if program.returncode is not None:  # only what it left behind is still there
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(_GRACE_S)
    program.wait()


def _judge(status: int, log: Path) -> None:
    if status == 0:
        return
    if -status in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        raise Interrupted(f"the program was ended by {signal.Signals(-status).name}")
    lines = log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
    printed = "\n".join(lines)[-_LOG_CHARACTERS:]
    if -status == signal.SIGKILL:
        raise TrainingFailed("oom", f"the program was killed (SIGKILL), most likely for want of memory\n{printed}")
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
    kind: FailureKind = "oom" if re.search(r"out of memory|OutOfMemoryError|\bMemoryError\b", printed) else "exit_code"
    last = f": {lines[-1].strip()[:_LINE_CHARACTERS]}" if lines else ""
    raise TrainingFailed(kind, f"the program ended with {how}{last}\n{printed}")


def _metrics(results: Path) -> dict[str, float]:
    if not results.is_file():
        raise TrainingFailed("data", f"the program ended well but wrote no {results.name}; looked for {results}")
    if results.suffix == ".csv":
        rows = list(_rows(results))
        if not rows:
            raise TrainingFailed("data", f"{results.name} has no row")
        return rows[-1]
    try:
        found: dict[str, float] = json.loads(results.read_text())  # looked through with the metrics of every trainer
    except (ValueError, RecursionError) as error:
        raise TrainingFailed("data", f"{results.name} is no JSON: {error}") from error
    return found


def _rows(results: Path) -> Iterator[dict[str, float]]:
    """The complete rows of a results.csv under our names. An unfinished last line is left for the next look."""
    text = results.read_text(errors="replace")
    complete = text[: text.rfind("\n") + 1]
    try:
        for row in csv.DictReader(complete.splitlines(), skipinitialspace=True):
            named = ((_our_name((column or "").strip()), value) for column, value in row.items())
            yield {name: _float(value) for name, value in named if name}
    except csv.Error as error:
        raise TrainingFailed("data", f"{results.name} is no CSV: {error}") from error


def _our_name(column: str) -> str | None:
    column = column.removesuffix("(B)")  # ultralytics' mark for boxes
    loss = re.fullmatch(r"(train|val)/(\w+)_loss", column)
    return f"{loss[1]}_{loss[2]}" if loss else _COLUMNS.get(column)


def _float(value: object) -> float:
    try:
        return float(str(value).strip())
    except ValueError:
        return float("nan")
