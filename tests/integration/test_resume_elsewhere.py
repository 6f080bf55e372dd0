"""A real training in real processes, killed with SIGKILL, goes on from the artifact store on another worker.

Once here; twenty times by ``python -m benchmarks.resume --kills 20`` (docs/results/resume.json).
"""

from pathlib import Path

from benchmarks.heartbeats import coordinator
from benchmarks.resume import measure


def test_a_training_killed_at_a_random_batch_goes_on_elsewhere_to_the_same_bits(tmp_path: Path, database_url: str) -> None:
    with coordinator(tmp_path, "--db", database_url) as url:
        figures = measure(url, tmp_path, kills=1, seed=3, epochs=4)
    assert figures["bit_identical"] == 1, figures
    (row,) = figures["trainings"]
    assert row["resumed_after_epochs"] is not None, figures
    assert row["attempts"] == 2
