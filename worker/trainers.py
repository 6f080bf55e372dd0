"""The trainers that run inside the training process: the built-in detector, and a Python function of the user's."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from worker import builtin, command
from worker.blame import one_line
from worker.context import Context, Trained
from worker.errors import NotInstalled, TrainingFailed


def train(trainer: Mapping[str, Any], context: Context) -> Trained:
    """Train once.

    Raises:
        TrainingFailed, Interrupted, NotInstalled, Cancelled, and whatever a user's function raises.
    """
    kind = trainer.get("kind")
    if kind == "detector":
        return builtin.train(context)
    if kind == "python":
        return Trained(_function(str(trainer.get("python", "")), context)(context))
    if kind == "command":
        return Trained(command.train(trainer, context))
    raise NotInstalled(
        f"this worker knows no trainer '{kind}', only detector, python, command; is it older than the coordinator?"
    )


def _function(path: str, context: Context) -> Callable[[Context], Any]:
    """The user's function; its module is looked for in the data root, then where Python looks."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise TrainingFailed("data", f"trainer python is '{path}'; write module:function, such as mytrain:train")
    root = str(context.data_root)
    if root not in sys.path:
        sys.path.insert(1, root)  # behind this program's own folder, before installed packages
    importlib.invalidate_caches()  # the file may be newer than this process
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        remedy = f"put {module.partition('.')[0]}.py into {root}" if error.name == module.partition(".")[0] else "install it"
        raise NotInstalled(f"trainer python {path}: {error}; {remedy} or start the worker with another --data-root") from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # no hyp set has been looked at yet: not the candidate's fault
        raise NotInstalled(f"trainer python {path}: {one_line(error, context.data_root)}; correct the module") from error
    file = getattr(found, "__file__", None) or module
    for part in name.split("."):
        if not hasattr(found, part):
            _forget(module)
            near = difflib.get_close_matches(part, [n for n in dir(found) if callable(getattr(found, n, None))], n=1)
            remedy = f"did you mean {near[0]}?" if near else f"define {part}(ctx) there, or correct the campaign's trainer"
            raise NotInstalled(f"trainer python {path}: {file} has no {part}; {remedy}")
        found = getattr(found, part)
    if not callable(found):
        _forget(module)
        raise NotInstalled(f"trainer python {path}: {file}: {name} is {found!r:.100}, which cannot be called; name a function")
    function: Callable[[Context], Any] = found
    return function


def _forget(module: str) -> None:
    """So that a corrected file is read anew."""
    with contextlib.suppress(KeyError):
        del sys.modules[module]
