"""docs/RELIABILITY.md must not rot: guarantees are answered, named tests exist, the table is that of the figures."""

import json
import re
from pathlib import Path

from benchmarks.chaos.figures import table

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/RELIABILITY.md").read_text()
GUARANTEES = [f"G{n}" for n in range(1, 35)] + [f"S{n}" for n in range(1, 13)]


def _rows() -> dict[str, str]:
    found = {}
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.fullmatch(r"[GS]\d+", cells[0]):
            assert cells[0] not in found, f"{cells[0]} stands twice"
            found[cells[0]] = cells[2]
    return found


def test_every_guarantee_is_answered_by_a_test_or_by_a_reason() -> None:
    rows = _rows()
    assert list(rows) == GUARANTEES
    for name, answer in rows.items():
        assert re.search(r"`test_\w+`", answer) or "not promised, because " in answer, name


def test_every_test_that_the_page_names_exists() -> None:
    there = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 50
    assert named - there == set()


def test_the_table_is_that_of_the_figures() -> None:
    found = re.search(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
    assert found
    measured = json.loads((ROOT / "docs" / found[1]).read_text())
    assert found[2].strip() == table(measured["results"], measured["seed"])
    assert measured["results"]["clean"]
