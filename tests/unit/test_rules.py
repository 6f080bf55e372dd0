"""The historical rules against the numbers of their tables, and the laws that hold for every strategy, space and seed.

Statistics are of 100,000 draws from a fixed seed; tolerances are several standard errors wide, and far smaller than the
difference to a wrong rule.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolution import cma_es, random_search, ultralytics, yolov3, yolov5_2024
from evolution.hyperparameters import lineage_space
from evolution.space import Gene, Space
from evolution.strategy import (
    NAMES,
    Candidate,
    History,
    OptionError,
    Proposal,
    Row,
    Wait,
    candidate_rng,
    create,
)

DRAWS = 100_000


def space_of(*starts, gain=1.0, lower=0.0, upper=10.0):
    return Space(tuple(Gene(f"g{i}", start, gain, lower, upper) for i, start in enumerate(starts)))


def history(strategy, number, rows=(), failed=(), pending=()):
    return History.select(number, strategy.needs, rows, failed, pending)


def rows_of(n, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return [Row(i, {f"g{j}": float(v) for j, v in enumerate(rng.uniform(0, 10, d))}, float(rng.random())) for i in range(n)]


# ---- yolov3-2019 and yolov3-2020 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "spread", "mean"), [(0.05, 0.1, 1.0025), (0.15, 0.302, 1.0225), (0.20, 0.404, 1.04)])
def test_factors_of_2019(sigma, spread, mean):
    factors = yolov3.factors_2019(np.full(DRAWS, sigma), np.random.default_rng(0))
    assert factors.std() == pytest.approx(spread, rel=0.01)
    assert factors.mean() == pytest.approx(mean, abs=0.004)
    assert (factors >= 0).all()


def test_the_parent_of_2019_is_the_fittest():
    rows = rows_of(9)
    best = max(rows, key=lambda row: row.fitness)
    strategy = create("yolov3-2019", {})
    children = [strategy.propose(space_of(1, 1, 1), history(strategy, 9, rows), candidate_rng(s, 9)) for s in range(50)]
    assert {child.parents for child in children} == {(best.number,)}
    assert yolov3.SIGMAS["momentum"] == 0.05
    assert yolov3.SIGMAS["scale"] == 0.20


@pytest.mark.parametrize(("method", "fourth_moments"), [(1, 1.8), (2, 1.0)])
def test_factors_of_2020_methods_1_and_2(method, fourth_moments):
    rng = np.random.default_rng(1)
    gains, movable = np.array([1.0, 1.0, 0.1]), np.ones(3, dtype=bool)
    factors = np.array([yolov3.factors_2020(gains, movable, method, rng) for _ in range(DRAWS)])
    assert factors[:, 0].std() == pytest.approx(0.232, rel=0.015)
    assert factors[:, 0].mean() == pytest.approx(1.0133, abs=0.003)
    assert factors[:, 2].std() == pytest.approx(0.0231, rel=0.02)
    steps = (np.sqrt(factors[:, :2]) - 1) ** 2
    # one u for all genes: E[u^4] / E[u^2]^2 = 1.8
    assert (steps[:, 0] * steps[:, 1]).mean() / steps.mean(0).prod() == pytest.approx(fourth_moments, abs=0.08)


def test_factors_of_2020_method_3():
    rng = np.random.default_rng(2)
    gains, movable = np.ones(16), np.ones(16, dtype=bool)
    factors = np.array([yolov3.factors_2020(gains, movable, 3, rng) for _ in range(DRAWS // 2)])
    assert (factors != 1).any(axis=1).all()
    # P(a gene moves | one does) = 0.1 / (1 - 0.9^16)
    assert (factors != 1).mean() == pytest.approx(0.1 / (1 - 0.9**16), abs=0.002)
    assert factors[factors != 1].std() == pytest.approx(0.404, rel=0.02)


def test_weighted_parent_of_2020_counts_ten_rows():
    strategy = create("yolov3-2020", {"parent": "weighted", "method": 3})
    rows = [Row(i, {"g0": float(i % 10)}, i / 100) for i in range(15)]
    proposal = strategy.propose(Space((Gene("g0", 1, 1e-9, 0, 10),)), history(strategy, 15, rows), candidate_rng(0, 15))
    weights = np.arange(9, -1, -1)
    expected = weights @ [float((14 - i) % 10) for i in range(10)] / weights.sum()
    assert proposal.parents == tuple(range(14, 4, -1))
    assert proposal.hyp["g0"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "read"),
    [
        ("yolov3-2019", {}, 1.23),
        ("yolov3-2020", {"parent": "weighted", "method": 3}, 1.23),
        ("yolov5-2021", {"mutation_probability": 0.1}, 1.2346),
    ],
)
def test_faithful_parents_come_from_a_file_of_few_digits(name, options, read):
    space = Space((Gene("g0", 1, 1e-3, 0, 10), Gene("g1", 1, 1, 0, 10)))
    rows = [Row(i, {"g0": 1.23456, "g1": 1.0}, 0.5) for i in range(10)]

    def kept(faithful):
        strategy = create(name, {**options, "faithful": faithful})
        hyps = [strategy.propose(space, history(strategy, 10, rows), candidate_rng(s, 10)).hyp for s in range(60)]
        return np.median([hyp["g0"] for hyp in hyps])

    near = 0.2 if name == "yolov3-2019" else 1e-9  # the rule of 2019 moves every gene
    assert kept(False) == pytest.approx(1.23456, abs=near)
    assert kept(True) == pytest.approx(read, abs=near)


# ---- yolov5-2024 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "expected"),
    [(0.0, (2, 10, 1.0, 0.5)), (0.25, (2, 7, 0.75, 0.25)), (0.5, (3, 5, 0.5, 0.01)), (1.0, (5, 2, 0.5, 0.01))],
)
def test_rates_adapt(t, expected):
    rates = yolov5_2024.rates(t)
    assert (rates.elites, rates.tournament, rates.crossover, rates.mutation) == pytest.approx(expected)


def test_parents_are_elites_or_winners_of_tournaments():
    rng, rate = np.random.default_rng(3), yolov5_2024.rates(0.0)
    ranks = np.bincount([yolov5_2024.select(50, 50, rate, rng) for _ in range(DRAWS // 4)], minlength=50) / (DRAWS / 4)
    # the best of 10 of 50 has rank r with C(49 - r, 9) / C(50, 10); 2 of 50 parents are elites
    assert ranks[0] == pytest.approx(0.04 / 2 + 0.96 * 0.2, abs=0.012)
    assert ranks[2] == pytest.approx(0.96 * 0.2 * (40 * 39) / (49 * 48), abs=0.01)
    assert ranks[41:].sum() == 0


def test_one_point_crossover_exchanges_the_tail_of_the_genes_that_move():
    rng, movable = np.random.default_rng(4), np.array([1, 2, 4])
    children = {tuple(yolov5_2024.cross(np.zeros(5), np.ones(5), movable, rng)) for _ in range(200)}
    assert children == {(0, 0, 1, 0, 1), (0, 0, 0, 0, 1)}


def test_a_population_waits_for_all_of_the_one_before():
    strategy = create("yolov5-2024", {"population": 4})
    space, rows = space_of(1, 2, 3), rows_of(4)
    waiting = history(strategy, 4, rows[:3], pending=[Candidate(3, rows[3].hyp)])
    assert strategy.propose(space, waiting, candidate_rng(0, 4)) == Wait("1 of generation 0's 4 candidates are in training")
    bred = strategy.propose(space, history(strategy, 4, rows), candidate_rng(0, 4))
    assert set(bred.parents) <= {0, 1, 2, 3}
    later = [*rows, Row(4, bred.hyp, 9.0)]  # its own generation breeds nothing
    assert strategy.propose(space, history(strategy, 5, later), candidate_rng(0, 5)).parents != (4,)
    failed = [Candidate(i, rows[i].hyp) for i in range(4)]
    assert strategy.propose(space, history(strategy, 4, (), failed), candidate_rng(0, 4)).parents == ()
    steady = create("yolov5-2024", {"population": 4, "steady": True})
    assert isinstance(steady.propose(space, waiting, candidate_rng(0, 4)), Proposal)


def test_a_faithful_step_is_absolute():
    space = Space((Gene("narrow", 0.0005, 1, 0, 0.001), Gene("wide", 20.0, 1, 0, 45)))

    def moves(faithful):
        strategy = create("yolov5-2024", {"population": 1000, "faithful": faithful})
        before = [Row(i, space.start, 0.1) for i in range(1000)]
        shown = history(strategy, 1000, before)
        bred = [strategy.propose(space, replace(shown, number=n), candidate_rng(7, n)).hyp for n in range(1000, 2000)]
        narrow = np.array([hyp["narrow"] for hyp in bred if hyp["narrow"] != 0.0005])
        return ((narrow == 0) | (narrow == 0.001)).mean(), max(abs(hyp["wide"] - 20) for hyp in bred)

    assert moves(True) == pytest.approx((0.995, 0.1), abs=0.005)
    assert moves(False) == pytest.approx((0.0, 4.5), abs=0.05)


def test_faithful_generations_repeat_their_tournaments_cuts_and_steps():
    space = Space((Gene("a", 0.5, 1, 0, 1), Gene("b", 0.5, 1, 0, 1)))

    def generation(faithful, seed, first):
        """The ranks of the parents, and the children, of a generation bred from the same values."""
        strategy = create("yolov5-2024", {"population": 8, "generations": 10**6, "faithful": faithful})
        rows = [Row(first - 8 + i, {"a": 0.1 * i, "b": 0.05 * i}, 0.1 * i) for i in range(8)]
        bred = [strategy.propose(space, history(strategy, n, rows), candidate_rng(seed, n)) for n in range(first, first + 8)]
        return [(one.hyp, [number - first for number in one.parents]) for one in bred]

    assert generation(True, 1, 8) == generation(True, 2, 16)
    assert generation(False, 1, 8) != generation(False, 1, 16)
    assert generation(False, 1, 8) != generation(False, 2, 8)


# ---- ultralytics -------------------------------------------------------------------------------------------------------------


def test_factors_of_2025():
    rng = np.random.default_rng(6)
    gains, movable = np.array([1.0, 0.3, 9.0]), np.ones(3, dtype=bool)
    factors = np.array([ultralytics.factors_2025(gains, 0.2, movable, rng) for _ in range(DRAWS // 2)])
    kept = (factors == 1).mean(0)
    assert kept == pytest.approx(np.full(3, 0.5 * 0.75 / 0.875), abs=0.008)  # not all three at once
    assert np.log(factors[factors[:, 0] != 1, 0]).std() == pytest.approx(0.2, rel=0.015)
    assert np.log(factors[factors[:, 1] != 1, 1]).std() == pytest.approx(0.06, rel=0.015)
    assert (factors.min(), factors.max()) == (0.25, 4.0)
    assert [ultralytics.sigma_2025(n) for n in (0, 150, 300, 900)] == pytest.approx([0.2, 0.15, 0.1, 0.1])


def test_blends_reach_a_fifth_beyond_their_rows():
    rng = np.random.default_rng(7)
    drawn = np.array([ultralytics.blend(np.array([[1.0, 5.0], [3.0, 5.0]]), rng) for _ in range(DRAWS // 4)])
    assert (drawn[:, 0].min(), drawn[:, 0].max()) == pytest.approx((0.6, 3.4), abs=0.01)
    assert drawn[:, 0].mean() == pytest.approx(2.0, abs=0.02)
    assert (drawn[:, 1] == 5).all()


def test_steps_of_2026():
    rng, parent = np.random.default_rng(8), np.full(4, 0.5)
    sigma = np.array([0.05, 0.05, 0.01, 0.05])
    nobody = np.zeros((0, 4))
    steps = np.array([ultralytics.steps_2026(parent, nobody, sigma, 1.0, 4, rng) for _ in range(DRAWS // 2)]) - 0.5
    assert (steps == 0).mean(0) == pytest.approx(np.full(4, 0.5), abs=0.01)
    assert steps[steps[:, 2] != 0, 2].std() == pytest.approx(0.01, rel=0.02)
    # An elite that varies along one line: 0.4 of the children step along it.
    line = np.linspace(0.4, 0.6, 10)[:, None] * np.ones(4)
    along = np.array([ultralytics.steps_2026(parent, line, sigma, 1.0, 4, rng) for _ in range(DRAWS // 4)]) - 0.5
    both = along[(along[:, 0] != 0) & (along[:, 1] != 0)]
    variance = np.cov(line[:, 0])
    expected = 0.4 * variance / (0.4 * (variance + 0.05**2 / 4) + 0.6 * 0.05**2)
    assert np.corrcoef(both[:, 0], both[:, 1])[0, 1] == pytest.approx(expected, abs=0.03)


def test_stale_counts_the_rows_since_the_first_of_the_best():
    strategy = create("ultralytics-2026", {})
    rows = [Row(i, {"g0": 1.0}, f) for i, f in enumerate([0.1, 0.5, 0.500001, 0.2, 0.3])]
    assert ultralytics.stale(history(strategy, 5, rows)) == 3
    assert ultralytics.decay_2026(3) == pytest.approx(1 - 0.2 * 3 / 25)
    assert ultralytics.decay_2026(80) == pytest.approx(0.8)


def test_2026_refuses_what_is_known():
    space = Space((Gene("g0", 3, 1, 0, 4, integer=True),))
    strategy = create("ultralytics-2026", {})
    rows = [Row(i, {"g0": float(i)}, 0.1 * i) for i in range(4)]
    children = {strategy.propose(space, history(strategy, 9, rows), candidate_rng(s, 9)).hyp["g0"] for s in range(30)}
    assert children == {4.0}


# ---- random and cma-es -------------------------------------------------------------------------------------------------------


def test_random_is_uniform_in_the_range_or_along_the_scale():
    space = Space((Gene("lr0", 0.01, 1, 1e-4, 1e-1, "log"), Gene("fixed", 0.3, 0, 0, 1)))
    plain, scaled = random_search.RandomSearch(), random_search.RandomSearch(scaled=True)
    draws = [[rule.propose(space, History(1), candidate_rng(s, 1)).hyp for s in range(3000)] for rule in (plain, scaled)]
    assert np.mean([hyp["lr0"] for hyp in draws[0]]) == pytest.approx(0.05, abs=0.002)
    assert np.mean([np.log10(hyp["lr0"]) for hyp in draws[1]]) == pytest.approx(-2.5, abs=0.06)
    assert {hyp["fixed"] for part in draws for hyp in part} == {0.3}


def test_cma_es_moves_towards_what_is_better():
    space = space_of(5, 5, 5)
    strategy = cma_es.CmaEs()
    rows = []
    for number in range(1, 150):
        hyp = strategy.propose(space, history(strategy, number, rows), candidate_rng(0, number)).hyp
        rows.append(Row(number, hyp, -sum((value - 8) ** 2 for value in hyp.values())))
    assert [round(value) for value in rows[-1].hyp.values()] == [8, 8, 8]


# ---- golden sequences --------------------------------------------------------------------------------------------------------


def sequence(name, space, genes):
    """``genes`` of candidates 1, 2 and 60 of a campaign with seed 7."""
    strategy = create(name, {})
    rows = [Row(0, space.start, 0.2)]
    for number in (1, 2, 60):
        hyp = strategy.propose(space, history(strategy, number, rows), candidate_rng(7, number)).hyp
        rows.append(Row(number, hyp, 0.2 + 0.01 * number))
    return [tuple(space.decode(row.hyp)[gene] for gene in genes) for row in rows[1:]]


# The same seed gives the same children for ever: stored campaigns depend on it.
GOLDEN = {
    "hybrid": [(0.00618558, 0.921742, 3.89496), (0.00450113, 0.916437, 3.80738), (0.0451047, 0.88632, 3.80738)],
    "yolov3-2019": [(0.0146479, 0.98, 3.75702), (0.0148219, 0.930408, 2.15136), (0.0145063, 0.935023, 2.18249)],
    "yolov3-2020": [(0.00906431, 0.927619, 4.12212), (0.0109844, 0.926231, 4.08142), (0.0113804, 0.98, 5.306)],
    "yolov5-2024": [(0.0480634, 0.684622, 5.89267), (0.0632081, 0.61302, 2.44057), (0.0632081, 0.61302, 2.8706)],
    "ultralytics-2025": [(0.00743, 0.92633, 5.48026), (0.01, 0.90359, 5.48026), (0.00736, 0.8699, 5.50133)],
    "ultralytics-2026": [(0.03476, 0.92563, 4.0), (0.04554, 0.92563, 3.20918), (0.04554, 0.93907, 3.20918)],
    "cma-es": [(0.0107703, 0.903055, 3.0832), (0.0125834, 0.926054, 4.11928), (0.004177, 0.96336, 3.74668)],
    "random": [(0.04806, 0.68462, 5.89267), (0.06321, 0.61302, 2.44057), (0.01517, 0.83836, 7.28406)],
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_sequence(name):
    assert sequence(name, lineage_space(), ("lr0", "momentum", "anchor_t")) == GOLDEN[name]


# ---- options -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolov3-2020", {"method": 4}, "method: is 4; write 1, 2 or 3"),
        ("yolov3-2020", {"method": True}, "method: is True; write 1, 2 or 3"),
        ("yolov3-2019", {"sigma": 1}, "sigma: is no option of strategy yolov3-2019; known: faithful"),
        ("yolov5-2024", {"population": 2}, "population: is 2; write a whole number from 4 to 1000"),
        ("yolov5-2024", {"steady": "yes"}, "steady: is 'yes'; write true or false"),
        ("cma-es", {"sigma": 0}, "sigma: is 0; write a number from 0.001 to 1"),
        ("random", {"scale": True}, "scale: is no option of strategy random; did you mean 'scaled'?"),
    ],
)
def test_unusable_options_are_named(name, options, message):
    with pytest.raises(OptionError) as caught:
        create(name, options)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", NAMES)
def test_options_are_explicit(name):
    strategy = create(name, {})
    assert create(name, strategy.options) == strategy


# ---- whole numbers and choices -----------------------------------------------------------------------------------------------

CHOICES = ("SGD", "Adam", "AdamW")
KINDS = Space(
    (
        Gene("lr0", 0.01, 1, 1e-5, 0.1, "log"),
        Gene("anchors", 3.0, 2, 2.0, 10.0, integer=True),
        Gene("optimizer", 2.0, 1, 0.0, 2.0, choices=CHOICES),
        Gene("rect", 0.0, 1, 0.0, 1.0, choices=(False, True)),
    )
)
INHERITING = [name for name in NAMES if name not in ("random", "hybrid", "cma-es")]


def bred(name, draws, rows=(Row(0, KINDS.start, 0.5), Row(1, KINDS.start, 0.4)), **options):
    strategy = create(name, options)
    return [strategy.propose(KINDS, history(strategy, 1000, rows), candidate_rng(seed, 1000)).hyp for seed in range(draws)]


GOLDEN_KINDS = {
    "hybrid": [(0.00236507, 2, "SGD", False), (0.00184602, 2, "SGD", False), (0.000554983, 2, "SGD", False)],
    "yolov3-2019": [(0.0146479, 4, "SGD", False), (0.0148219, 5, "SGD", True), (0.0145063, 5, "SGD", True)],
    "yolov3-2020": [(0.0126271, 3, "AdamW", False), (0.0130196, 5, "AdamW", False), (0.0114787, 9, "AdamW", False)],
    "yolov5-2021": [(0.00999, 3, "Adam", False), (0.01124, 3, "AdamW", False), (0.01177, 3, "AdamW", False)],
    "yolov5-2024": [(0.0480634, 2, "SGD", False), (0.0632081, 6, "SGD", True), (0.0632081, 7, "SGD", False)],
    "ultralytics-2025": [(0.01, 3, "Adam", False), (0.009, 2, "Adam", False), (0.01465, 2, "Adam", False)],
    "ultralytics-2026": [(0.03574, 3, "AdamW", False), (0.03818, 7, "SGD", False), (0.03818, 9, "SGD", False)],
    "cma-es": [(0.0118499, 3, "AdamW", False), (0.0188508, 3, "AdamW", False), (0.0115669, 3, "AdamW", False)],
    "random": [(0.04806, 2, "SGD", False), (0.06321, 6, "SGD", True), (0.01517, 8, "Adam", False)],
}


@pytest.mark.parametrize("name", NAMES)
def test_golden_sequence_with_whole_numbers_and_choices(name):
    assert sequence(name, KINDS, KINDS.names) == GOLDEN_KINDS[name]


@pytest.mark.parametrize("name", INHERITING)
def test_a_choice_is_inherited_and_changes_in_one_of_ten(name):
    rows = [Row(i, KINDS.start, 0.5) for i in range(900, 1000)]  # a generation of which all are alike
    children = bred(name, 1500, rows)
    changed = [hyp["optimizer"] for hyp in children if hyp["optimizer"] != 2.0]
    # 2026 draws again where nothing else moved, and so keeps those in which a choice did.
    share = 0.13 if name == "ultralytics-2026" else 0.1
    assert len(changed) / len(children) == pytest.approx(share, abs=0.025)
    assert np.mean(changed) == pytest.approx(0.5, abs=0.15)  # either of the others
    assert np.mean([hyp["rect"] for hyp in children]) == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize("scaled", [False, True])
def test_random_choices_and_whole_numbers_are_equally_likely(scaled):
    children = bred("random", 4000, scaled=scaled)
    for gene, shares in (("anchors", 9), ("optimizer", 3), ("rect", 2)):
        counts = np.bincount([int(hyp[gene]) for hyp in children])[-shares:]
        assert counts / len(children) == pytest.approx(np.full(shares, 1 / shares), abs=0.03)


@pytest.mark.parametrize("name", ["hybrid", "cma-es"])
def test_choices_move_and_are_learned_in_the_cube(name):
    """Where one optimizer is better, most children have it in the end, whatever the start says."""
    strategy, rows = create(name, {}), [Row(0, KINDS.start, 0.2)]
    for number in range(1, 90):
        hyp = strategy.propose(KINDS, history(strategy, number, rows), candidate_rng(3, number)).hyp
        rows.append(Row(number, hyp, 0.2 + 0.1 * (hyp["optimizer"] == 0) + 0.02 * (hyp["anchors"] - 3)))
    assert {row.hyp["optimizer"] for row in rows} == {0.0, 1.0, 2.0}
    assert np.mean([row.hyp["optimizer"] == 0 for row in rows[-20:]]) > 0.7
    assert np.mean([row.hyp["anchors"] for row in rows[-20:]]) > 6


def test_the_choice_of_a_mean_is_that_of_the_heaviest_parent():
    rows = [Row(0, KINDS.start, 0.9), Row(1, {**KINDS.start, "optimizer": 0.0}, 0.2), Row(2, {**KINDS.start, "lr0": 0.1}, 0.1)]
    children = bred("yolov5-2021", 300, rows, parent="weighted")
    assert np.mean([hyp["optimizer"] == 2 for hyp in children]) == pytest.approx(0.9, abs=0.06)


# ---- laws --------------------------------------------------------------------------------------------------------------------

LAW = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def genes(draw, name):
    scale = draw(st.sampled_from(["linear", "log", "log1m"]))
    lower = draw(st.sampled_from([0.0, 1e-5, 2.5e-6, 0.02, -1.0]))
    upper = lower + draw(st.sampled_from([0.0, 1e-6, 0.001, 0.98, 45.0]))
    start = min(max(lower + (upper - lower) * draw(st.floats(0, 1)), lower), upper)
    gain = draw(st.sampled_from([0.0, 0.3, 1.0, 2.0]))
    kind = draw(st.sampled_from(["number", "number", "whole", "words", "switch"]))
    if kind == "whole":
        return Gene(name, 3.0, gain, 1.0, 5.0, scale, integer=True)
    if kind in ("words", "switch"):
        choices = ("SGD", "Adam", "AdamW") if kind == "words" else (False, True)
        return Gene(name, 1.0, gain, 0.0, len(choices) - 1.0, choices=choices)
    return Gene(name, start, gain, lower, upper, scale)


movers = st.sampled_from([Gene("mover", 0.5, 1.0, 0.1, 1.0)] * 3 + [Gene("mover", 0.0, 1.0, 0.0, 2.0, choices=("a", "b", "c"))])


@st.composite
def campaigns(draw):
    """A space, rows (ties, equal hyp sets, odd fitnesses, some of wider bounds), failed and pending candidates."""
    space = Space((draw(movers), *(draw(genes(f"g{i}")) for i in range(draw(st.integers(0, 4))))))
    fitness = draw(st.sampled_from([[0.0], [0.3], [0.0, 0.1, 0.5], [-3.0, 0.2, 1e6], [0.41, 0.42, 0.43, 0.44]]))
    count = draw(st.sampled_from([0, 1, 2, 9, 40]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))

    wider = draw(st.booleans())

    def value(gene):
        if gene.choices:
            return float(rng.integers(len(gene.choices)))
        value = float(rng.uniform(gene.lower - wider, gene.upper + wider))
        return float(round(value)) if gene.integer else value if wider else gene.clip(value)

    def hyp():
        return space.start if rng.random() < 0.2 else {gene.name: value(gene) for gene in space}

    numbers = rng.permutation(count + 8).tolist()
    rows = [Row(numbers.pop() - 2, hyp(), float(rng.choice(fitness))) for _ in range(count)]
    others = [Candidate(numbers.pop() + 1000, hyp()) for _ in range(8)]
    return space, rows, others[: draw(st.integers(0, 4))], others[4:]


seeds = st.integers(0, 2**31 - 1)


# Options with which a rule goes another way; each campaign draws one.
METHODS = [{"parent": parent, "method": method} for parent in ("single", "weighted") for method in (1, 2, 3)]
VARIANTS = {
    "yolov3-2019": [{"faithful": True}],
    "yolov3-2020": [*METHODS, {"faithful": True, "parent": "weighted"}],
    "yolov5-2021": [{"parent": "weighted"}, {"faithful": True}, {"parents": 1, "mutation_probability": 0.01}],
    "yolov5-2024": [{"steady": True}, {"faithful": True}, {"steady": True, "faithful": True, "population": 8}],
    "ultralytics-2026": [{"faithful": True}],
    "random": [{"scaled": True}],
}


@pytest.mark.parametrize("name", NAMES)
@LAW
@given(campaign=campaigns(), seed=seeds, number=st.sampled_from([1, 3, 49, 50, 120, 3000]), data=st.data())
def test_laws(name, campaign, seed, number, data):
    space, rows, failed, pending = campaign
    strategy = create(name, data.draw(st.sampled_from([{}, *VARIANTS.get(name, ())])))
    answer = strategy.propose(space, history(strategy, number, rows, failed, pending), candidate_rng(seed, number))
    backwards = history(strategy, number, rows[::-1], failed[::-1], pending[::-1])
    assert strategy.propose(space, backwards, candidate_rng(seed, number)) == answer
    mixed = History(number, backwards.fittest[::-1], backwards.newest[::-1], backwards.failed[::-1], backwards.pending[::-1])
    assert strategy.propose(space, mixed, candidate_rng(seed, number)) == answer
    if isinstance(answer, Proposal):
        assert tuple(answer.hyp) == space.names
        assert space.contains(answer.hyp)
        assert all(answer.hyp[gene.name] == gene.start for gene in space if gene.fixed)
        assert space.encode(space.decode(answer.hyp)) == answer.hyp
        assert set(answer.parents) <= {row.number for row in rows}
    incumbent = strategy.incumbent(space, backwards)
    assert (incumbent is None) == (not rows)
    assert incumbent is None or set(incumbent) == set(space.names)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_can_move(name):
    strategy = create(name, {})
    for space in (space_of(1.0, gain=0.0), Space(())):
        with pytest.raises(ValueError, match="no gene can move"):
            strategy.propose(space, History(1), candidate_rng(0, 1))
