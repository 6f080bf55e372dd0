"""Requests made from the API's own description with each scope, in short; the long form is `make fuzz`."""

from pathlib import Path

import pytest

from benchmarks.fuzz_api import CALLERS, Fuzz
from benchmarks.heartbeats import coordinator


@pytest.mark.filterwarnings("ignore")
def test_no_request_of_any_scope_is_answered_wrongly(tmp_path: Path) -> None:
    with coordinator(tmp_path) as url:
        fuzz = Fuzz(url)
        fuzz.run(1, 7)  # one of each kind for every operation and every caller
    assert fuzz.wrong == []
    assert {key.split()[0] for key in fuzz.answers} == set(CALLERS)
    assert {key.split()[1] for key in fuzz.answers if key.startswith("none")} <= {"200", "401"}
