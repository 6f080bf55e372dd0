"""What the benchmark of a node's speed makes of its rows."""

from __future__ import annotations

from benchmarks.detector_train import summarise


def row(wall, step, cpu_step, cpu):
    return {"wall_s": wall, "step_wall_s": step, "step_cpu_s": cpu_step, "cpu_s": cpu, "other_cpu_s": 0.1}


def test_ours_is_compared_with_the_better_number_of_threads():
    rows = {
        "ours": [row(10, 0.5, 0.4, 8), row(10, 0.5, 0.4, 8)],
        "as_reference_1": [row(40, 1.6, 1.6, 40)],
        "as_reference_2": [row(30, 1.0, 1.8, 50)],
    }
    found = summarise(rows, walls=[20.0], processes=2, batch=16, peers={"mine": [{"wall_s": 60.0, "cpu_s": 90.0}]})
    assert found["images_per_s_of_the_node"] == {"ours": 64.0, "as_reference_2": 16.0, "ratio": 4.0}
    assert found["images_per_cpu_s_of_one_thread"] == {"ours": 40.0, "as_reference_1": 10.0, "ratio": 4.0}
    assert found["candidates_per_hour_of_the_node"] == {"ours": 360.0, "as_reference_2": 120.0, "mine": 60.0, "ratio": 3.0}
    assert found["candidates_per_cpu_hour"]["ratio"] == 5.0
