"""The rule yolov5-2021 against its published numbers, and the laws that hold for every space and seed.

Statistics are of 100,000 draws from a fixed seed; tolerances are several standard errors wide, and far smaller than the
difference to a wrong rule.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolution.hyperparameters import lineage_space
from evolution.space import Gene, Space
from evolution.strategy import History, Needs, OptionError, Row, candidate_rng, create
from evolution.yolov5_2021 import Yolov5, bounded, draw_factors, draw_index, parent_weights

DRAWS = 100_000
GAINS = np.array([1.0, 0.3, 0.6] + [1.0] * 17)


@pytest.fixture(scope="module")
def factors():
    rng = np.random.default_rng(0)
    movable = np.ones(len(GAINS), dtype=bool)
    return np.array([draw_factors(GAINS, movable, rng) for _ in range(DRAWS)])


def child(strategy, space, rows, number, seed=0):
    return strategy.propose(space, History.select(number, strategy.needs, rows), candidate_rng(seed, number))


def space_of(*starts, gain=1.0, lower=0.0, upper=10.0):
    return Space(tuple(Gene(f"g{i}", start, gain, lower, upper) for i, start in enumerate(starts)))


# ---- numbers of the rule -----------------------------------------------------------------------------------------------------


def test_a_fifth_of_the_genes_keeps_its_value(factors):
    assert (factors == 1).mean(axis=0) == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize(("gene", "gain"), [(0, 1.0), (1, 0.3), (2, 0.6)])
def test_spread_of_a_mutated_gene(factors, gene, gain):
    mutated = factors[factors[:, gene] != 1, gene]
    # sigma^2 E[u^2] = 0.04 / 3: the variance is 0.0133 gain^2, not 0.04
    assert mutated.std() == pytest.approx(0.11547 * gain, rel=0.015)
    assert mutated.mean() == pytest.approx(1, abs=0.003 * gain)


def test_nine_tenths_of_mutated_genes_change_by_less_than_a_fifth(factors):
    mutated = factors[factors[:, 0] != 1, 0]
    assert np.quantile(mutated, [0.05, 0.95]) == pytest.approx([0.81, 1.19], abs=0.006)


def test_genes_of_one_draw_share_one_step_size(factors):
    squares = (factors[:, 3:5] - 1) ** 2
    # E[u^4] / E[u^2]^2 = 1.8; with a step size of its own per gene it would be 1
    assert (squares[:, 0] * squares[:, 1]).mean() / squares.mean(axis=0).prod() == pytest.approx(1.8, abs=0.08)


def test_signs_and_masks_of_genes_are_independent(factors):
    assert np.corrcoef(factors[:, 3], factors[:, 4])[0, 1] == pytest.approx(0, abs=0.015)
    both = ((factors[:, 3] == 1) & (factors[:, 4] == 1)).mean()
    assert both == pytest.approx(0.04, abs=0.003)


def test_factors_are_clipped():
    rng = np.random.default_rng(1)
    wild = np.array([draw_factors(np.array([50.0]), np.array([True]), rng) for _ in range(2000)])
    assert wild.min() == 0.3
    assert wild.max() == 3.0


def test_a_draw_that_changes_nothing_is_repeated():
    rng = np.random.default_rng(2)
    two = np.array([draw_factors(np.ones(2), np.ones(2, dtype=bool), rng) for _ in range(DRAWS // 4)])
    assert (two != 1).any(axis=1).all()
    # P(kept | not both kept) = 0.2 * 0.8 / (1 - 0.04)
    assert (two[:, 0] == 1).mean() == pytest.approx(1 / 6, abs=0.01)


def test_only_genes_that_can_move_count_for_the_repetition():
    rng = np.random.default_rng(3)
    movable = np.array([True, False])
    pairs = np.array([draw_factors(np.ones(2), movable, rng) for _ in range(2000)])
    assert (pairs[:, 0] != 1).all()


@pytest.mark.parametrize("parents", [5, 3])
def test_parents_are_drawn_by_their_weight(parents):
    fitness = [0.5, 0.4, 0.35, 0.3, 0.2][:parents]
    weights = parent_weights(fitness)
    expected = np.array(fitness) - min(fitness) + 1e-6
    assert weights == pytest.approx(expected / expected.sum())
    rng = np.random.default_rng(4)
    drawn = np.bincount([draw_index(weights, rng) for _ in range(DRAWS)], minlength=parents) / DRAWS
    assert drawn == pytest.approx(weights, abs=0.006)  # the original program: one rank nearly always
    assert drawn[-1] < 0.001


def test_equal_parents_are_equally_likely():
    assert parent_weights([0.3] * 4) == pytest.approx([0.25] * 4)
    assert parent_weights([0.0]) == pytest.approx([1.0])
    assert np.isfinite(parent_weights([1e308, -1e308])).all()


def test_only_the_fittest_are_parents():
    rows = [Row(i, {"g0": 1.0 + i}, fitness=i / 10) for i in range(9)]
    drawn = {child(Yolov5(), space_of(1.0), rows, n).parents for n in range(400)}
    assert drawn == {(8,), (7,), (6,), (5,)}  # the fifth, number 4, has weight 1e-6


def test_a_faithful_draw_is_a_constant():
    """Of random top fives the program, seeded with 0 before each draw, chose the best row hardly ever and the third mostly."""
    rng = np.random.default_rng(5)
    ranks = np.zeros(5)
    for _ in range(4000):
        fitness = np.sort(rng.random(5))[::-1]
        rows = [Row(i, {"g0": 1.0}, float(f)) for i, f in enumerate(fitness)]
        ranks[child(Yolov5(faithful=True), space_of(1.0), rows, 1).parents[0]] += 1 / 4000
    assert ranks == pytest.approx([0.0, 0.1, 0.7, 0.2, 0.0], abs=0.04)
    assert len({child(Yolov5(faithful=True), space_of(1.0), rows, n).parents for n in range(50)}) == 1


def test_weighted_parent_is_the_mean_of_the_rows():
    rows = [Row(0, {"g0": 4.0}, 0.3), Row(1, {"g0": 2.0}, 0.1), Row(2, {"g0": 1.0}, 0.0)]
    strategy = Yolov5(parent="weighted", sigma=0.001)
    proposal = child(strategy, space_of(1.0), rows, 3)
    assert proposal.parents == (0, 1, 2)
    assert proposal.hyp["g0"] == pytest.approx((0.3 * 4 + 0.1 * 2) / 0.4, abs=0.02)


@pytest.mark.parametrize(
    ("lower", "upper", "value", "child"),
    [
        (0.0, 1.0, 0.123456789, 0.12346),  # five decimals
        (0.0, 1.0, 7.0, 1.0),
        (0.5, 1.0, 0.0, 0.5),
        (0.0, 0.001, 0.0012, 0.001),
        (1e-5, 0.1, 1e-9, 1e-5),
        (2.5e-6, 4e-6, 3e-6, 2.5e-6),  # rounds to 0, below its bound
        (0.0, 0.123456, 0.1234559, 0.123456),  # rounds to 0.12346, above its bound
        (-1.0, 1.0, -1e-9, 0.0),
    ],
)
def test_children_are_clipped_rounded_and_still_inside(lower, upper, value, child):
    hyp = bounded(Space((Gene("g", (lower + upper) / 2, 1.0, lower, upper),)), np.array([value]))
    assert hyp == {"g": child}
    assert str(hyp["g"])[0] != "-"


GOLDEN_FIRST = (0.00922, 0.92052, 4.07288, 1.0)
GOLDEN_SECOND = (0.00976, 0.85825, 3.93482, 1.0)


def test_golden_sequence():
    """The same seed gives the same children for ever: stored campaigns depend on it."""
    space = lineage_space()
    first = child(Yolov5(), space, [], 1, seed=7)
    assert first.parents == ()
    rows = [Row(0, space.start, 0.20), Row(1, first.hyp, 0.25)]
    second = child(Yolov5(), space, rows, 2, seed=7)
    assert (first.hyp["lr0"], first.hyp["momentum"], first.hyp["anchor_t"], first.hyp["mosaic"]) == GOLDEN_FIRST
    assert second.parents == (1,)
    assert (second.hyp["lr0"], second.hyp["momentum"], second.hyp["anchor_t"], second.hyp["mosaic"]) == GOLDEN_SECOND


def test_unmoved_genes_of_the_lineage():
    space = lineage_space()
    moved = set()
    for number in range(200):
        hyp = child(Yolov5(), space, [], number).hyp
        moved |= {name for name in hyp if hyp[name] != space[name].start}
    assert set(space.names) - moved == {
        *("iou_t", "fl_gamma", "perspective", "fliplr"),  # gain 0
        *("degrees", "shear", "flipud", "mixup", "copy_paste"),  # value 0
    }


# ---- edges -------------------------------------------------------------------------------------------------------------------


def test_nothing_can_move():
    for space in (space_of(0.0, 0.0), space_of(1.0, gain=0.0), Space(())):
        with pytest.raises(ValueError, match="no gene can move"):
            child(Yolov5(), space, [], 0)


def test_a_parent_that_cannot_move_gives_way_to_the_start():
    proposal = child(Yolov5(), space_of(1.0), [Row(4, {"g0": 0.0}, 0.9)], 1)
    assert proposal.parents == ()
    assert proposal.hyp["g0"] > 0.5


def test_gains_too_small_to_act_end_in_an_error_not_in_a_loop():
    with pytest.raises(ValueError, match="no gene moved"):
        draw_factors(np.array([1e-300]), np.array([True]), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolov5-2020", {}, "strategy: 'yolov5-2020' is unknown; available: hybrid, yolov3-2019, "),
        ("optuna", {}, "strategy: 'optuna' is unknown; available: hybrid, yolov3-2019, "),
        ("yolov5-2021", {"sigmas": 1}, "sigmas: is no option of strategy yolov5-2021; did you mean 'sigma'?"),
        ("yolov5-2021", {"faithful": 1}, "faithful: is 1; write true or false"),
        ("yolov5-2021", {"method": 1}, "method: is no option of strategy yolov5-2021; known: parents, parent, "),
        ("yolov5-2021", {"parents": 0}, "parents: is 0; write a whole number from 1 to 1000"),
        ("yolov5-2021", {"parents": True}, "parents: is True; write a whole number from 1 to 1000"),
        ("yolov5-2021", {"parent": "double"}, "parent: is 'double'; write single or weighted"),
        ("yolov5-2021", {"mutation_probability": 0}, "mutation_probability: is 0; write a number from 0.01 to 1"),
        ("yolov5-2021", {"sigma": float("nan")}, "sigma: is nan; write a number from 0.001 to 1"),
    ],
)
def test_unusable_options_are_named(name, options, message):
    with pytest.raises(OptionError) as caught:
        create(name, options)
    assert str(caught.value).startswith(message)


def test_options_are_explicit():
    defaults = {"parents": 5, "parent": "single", "mutation_probability": 0.8, "sigma": 0.2, "faithful": False}
    assert create("yolov5-2021", {}).options == defaults
    assert create("yolov5-2021", {"parents": 9}).needs == Needs(fittest=9)


def test_streams_of_candidates_differ_and_repeat():
    draws = {tuple(candidate_rng(s, n).random(3)) for s in range(3) for n in range(3)}
    assert len(draws) == 9
    assert candidate_rng(2, 5).random() == candidate_rng(2, 5).random()


# ---- laws --------------------------------------------------------------------------------------------------------------------

LAW = settings(max_examples=80, deadline=None, derandomize=True)


@st.composite
def genes(draw, name):
    lower = draw(st.sampled_from([0.0, 1e-5, 2.5e-6, 0.02, -1.0]))
    upper = lower + draw(st.sampled_from([0.0, 1e-6, 0.001, 0.98, 45.0]))
    start = lower + (upper - lower) * draw(st.floats(0, 1))
    return Gene(name, min(max(start, lower), upper), draw(st.sampled_from([0.0, 0.3, 1.0, 2.0])), lower, upper)


@st.composite
def spaces(draw):
    return Space((Gene("mover", 0.5, 1.0, 0.1, 1.0), *(draw(genes(f"g{i}")) for i in range(draw(st.integers(0, 5))))))


@st.composite
def spaces_and_rows(draw):
    space = draw(spaces())
    fitness = st.sampled_from([0.0, 0.1, 0.1, 0.5, -3.0, 1e6])
    rows = []
    for number in range(draw(st.integers(0, 7))):
        values = {g.name: draw(st.floats(g.lower, g.upper)) for g in space}
        rows.append(Row(number, values, draw(fitness)))
    return space, rows


seeds = st.integers(0, 2**31 - 1)


@LAW
@given(spaces_and_rows(), seeds, st.sampled_from(["single", "weighted"]))
def test_children_stay_inside_the_space(space_and_rows, seed, parent):
    space, rows = space_and_rows
    proposal = child(Yolov5(parent=parent), space, rows, 1, seed)
    assert tuple(proposal.hyp) == space.names
    assert space.contains(proposal.hyp)
    assert all(proposal.hyp[gene.name] == gene.start for gene in space if gene.fixed)
    assert set(proposal.parents) <= {row.number for row in rows}


@LAW
@given(spaces_and_rows(), seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(space_and_rows, seed, random):
    space, rows = space_and_rows
    shuffled = list(rows)
    random.shuffle(shuffled)
    as_they_are, in_order = History(1, fittest=tuple(shuffled)), History(1, fittest=tuple(rows))
    propose = Yolov5().propose
    assert propose(space, as_they_are, candidate_rng(seed, 1)) == propose(space, in_order, candidate_rng(seed, 1))


@LAW
@given(spaces_and_rows(), seeds)
def test_freezing_all_but_one_gene_changes_only_that_gene(space_and_rows, seed):
    space, rows = space_and_rows
    frozen = Space(tuple(g if g.name == "mover" else Gene(g.name, g.start, 0.0, g.lower, g.upper) for g in space))
    hyp = child(Yolov5(), frozen, rows, 1, seed).hyp
    assert {name for name in hyp if hyp[name] != space[name].start} <= {"mover"}


@LAW
@given(st.lists(st.sampled_from([0.0, 0.2, 0.2, 1.0, -5.0, 1e300, -1e300]), min_size=1, max_size=9))
def test_weights_are_a_distribution(fitness):
    weights = parent_weights(fitness)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
