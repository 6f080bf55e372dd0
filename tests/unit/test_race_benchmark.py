"""What the race makes of its trainings."""

import numpy as np
import pytest

from benchmarks.race import Race, confirmation, evolution, interval, summed_up, table

RACE = Race(("hybrid", "random"), 2, 3, 2, {"epochs": 1})


def test_training_seeds_are_shared_between_strategies_and_new_for_confirmations():
    seeds = {strategy: evolution(RACE, strategy, 1)["evolve"]["seed"] for strategy in RACE.strategies}
    assert len(set(seeds.values())) == 1
    again = [confirmation(RACE, "hybrid", seed, repeat, {"lr0": 0.1})["evolve"]["seed"] for seed in (0, 1) for repeat in (0, 1)]
    assert len(set(again)) == 4
    assert min(again) > max(seeds.values()) + 100_000
    assert confirmation(RACE, "start", 0, 0, None).get("hyp") is None


def test_an_interval_covers_runs_and_confirmations():
    low, high = interval([[0.4, 0.5], [0.6, 0.7]], np.random.default_rng(0))
    assert (low, high) == (pytest.approx(0.4, abs=0.06), pytest.approx(0.7, abs=0.06))
    assert interval([[0.5, 0.5]], np.random.default_rng(0)) == [0.5, 0.5]


def test_the_table_ranks_by_what_fresh_seeds_confirm():
    def run(seed, best, confirmed):
        return {"seed": seed, "done": 3, "failed": 0, "best_fitness": best, "cpu_hours": 0.5, "confirmed": confirmed}

    found = {
        "start": [[0.3, 0.4], [0.3, 0.5]],
        "strategies": {
            "lucky": {"runs": [run(0, 0.9, [0.4, 0.4]), run(1, 0.9, [0.4, 0.4])]},
            "sound": {"runs": [run(0, 0.6, [0.5, 0.6]), run(1, 0.6, [0.5, 0.7])]},
            "unfinished": {"runs": []},
        },
    }
    summed_up(found)
    lines = table(found).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["the start hyp set", "sound", "lucky"]
    assert found["strategies"]["sound"]["lead_over_start"] == pytest.approx(0.2)
    assert found["strategies"]["sound"]["lead_interval"] == [pytest.approx(0.2), pytest.approx(0.2)]
    assert "| 2 | 6 | 1.00 | 0.600 | 0.575 [" in lines[3]
