"""Campaign files: what is accepted, what each refusal says, and that the document carries everything."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolution.campaign import Campaign, InvalidCampaign, Trainer
from evolution.campaign_limits import Requires
from evolution.hyperparameters import LINEAGES, lineage_space
from evolution.preflight import preflight
from evolution.result_files import ResultRow, evolve_csv, evolve_txt

MINIMAL = "name: tiny\nbase: {data: d.yaml, epochs: 3}\n"
HYP = {gene.name: gene.start for gene in lineage_space()}


def hyp_text(**changes):
    """A hyp file; a gene given as None is left out."""
    return "".join(f"{name}: {value}\n" for name, value in {**HYP, **changes}.items() if value is not None)


def read(text, **files):
    def open_file(name):
        if name not in files:
            raise FileNotFoundError(2, "No such file", name)
        return files[name]

    return Campaign.read(text, "campaign.yaml", open_file)


def problems(text, **files):
    with pytest.raises(InvalidCampaign) as caught:
        read(text, **files)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    assert all(problem.remedy for problem in caught.value.problems)
    return lines


# ---- what is accepted --------------------------------------------------------------------------------------------------------


def test_defaults():
    campaign = read(MINIMAL)
    assert campaign.space == lineage_space()
    assert campaign.trainer == Trainer("detector")
    assert campaign.weights == {"map50": 0.1, "map50_95": 0.9}
    assert (campaign.strategy, campaign.seed, campaign.same_seed) == ("hybrid", 0, False)
    assert (campaign.candidates, campaign.retries_failed) == (300, 1)
    assert (campaign.heartbeat_s, campaign.expire_s) == (15.0, 60.0)
    assert (campaign.epochs, campaign.lineage, campaign.notes, campaign.imported) == (3, "yolov5", (), ())
    assert campaign.base == {"data": "d.yaml", "epochs": 3}


def test_a_whole_file():
    campaign = read(
        MINIMAL
        + """
hyp: hyp.yaml
space_format: yolov5
space: {lr0: [1, 1e-5, 1e-1], degrees: {gain: 1, min: 0, max: 90, start: 2}, mixup: [False, 0, 1], scale: [true, 0, .8]}
fixed: [momentum]
fitness: {map50_95: 1}
evolve: {strategy: yolov5-2021, seed: 4, same_seed: true, parents: 3, parent: weighted}
budget: {candidates: 12, gpu_hours: 4.5, deadline: 2026-12-24T18:00+01:00, patience: 50}
retries: {failed: 0}
lease: {heartbeat: 500ms, expire: 5m, checkpoint: 1m, priority: 2, share: 3, requires: {labels: a100, gpu_memory: 24}}
""",
        **{"hyp.yaml": hyp_text(lr0=0.02)},
    )
    space = campaign.space
    assert (space["lr0"].start, space["lr0"].lower, space["lr0"].upper) == (0.02, 1e-5, 0.1)
    assert (space["degrees"].start, space["degrees"].upper) == (2.0, 90.0)
    assert space["momentum"].fixed
    assert space["momentum"].start == 0.937
    assert space["mixup"].fixed
    assert not space["scale"].fixed
    assert campaign.weights == {"map50_95": 1.0}
    assert (campaign.seed, campaign.same_seed) == (4, True)
    options = {"parents": 3, "parent": "weighted", "mutation_probability": 0.8, "sigma": 0.2, "faithful": False}
    assert campaign.options == options
    assert (campaign.candidates, campaign.retries_failed) == (12, 0)
    assert (campaign.heartbeat_s, campaign.expire_s, campaign.checkpoint_s) == (0.5, 300.0, 60.0)
    assert (campaign.gpu_hours, campaign.deadline, campaign.patience) == (4.5, "2026-12-24T18:00:00+01:00", 50)
    assert (campaign.priority, campaign.share) == (2, 3.0)
    assert campaign.requires == Requires(("a100",), None, 1, 24.0)


def test_ultralytics_order():
    campaign = read(MINIMAL + "space_format: ultralytics\nspace: {momentum: [0.7, 0.98, 0.3], lr0: [1e-5, 1e-2]}\n")
    gene = campaign.space["momentum"]
    assert (gene.gain, gene.lower, gene.upper) == (0.3, 0.7, 0.98)
    assert campaign.space["lr0"].gain == 1


def test_exponents_are_numbers():
    assert read(MINIMAL + "space: {lr0: [1, 1e-5, 1e-1]}\n").space["lr0"].lower == 1e-5


def test_absent_anchors_are_three_and_noted():
    campaign = read(MINIMAL + "hyp: hyp.yaml\n", **{"hyp.yaml": hyp_text(anchors=None)})
    assert campaign.space["anchors"].start == 3
    assert campaign.notes == ("anchors absent from hyp.yaml: 3 is used, as yolov5 does",)


@pytest.mark.parametrize(
    ("text", "trainer"),
    [
        ("trainer: detector", Trainer()),
        ("trainer: {python: 'package.module:train'}", Trainer("python", python="package.module:train")),
        (
            "trainer: {command: [python, train.py, --hyp, '{hyp}'], results: results.csv}",
            Trainer("command", command=("python", "train.py", "--hyp", "{hyp}"), results="results.csv"),
        ),
    ],
)
def test_trainers(text, trainer):
    campaign = read(f"{MINIMAL}{text}\n")
    assert campaign.trainer == trainer
    assert campaign.space == lineage_space()


def test_the_braces_of_a_script_are_its_own():
    scripts = ["awk '{print $1}'", '{"a":1}', "${HOME}/x", "print(f'{x}')", "a{b,c}", "{dir}/{name}.json"]
    assert read(f"{MINIMAL}trainer: {json.dumps({'command': scripts, 'results': 'r'})}\n").trainer.command == tuple(scripts)


def test_own_genes_of_an_own_trainer():
    own = MINIMAL + "trainer: {python: 'm:f'}\n"
    campaign = read(own + "hyp: {dropout: 0.1, lr0: 0.01, layers: 3}\nspace: {dropout: [1, 0, 0.5]}\nfixed: [layers]\n")
    assert campaign.space.names == ("dropout", "lr0", "layers")
    assert campaign.space["lr0"].upper == 0.1  # known to the lineage
    assert campaign.space["layers"].fixed
    campaign = read(own + "space: {width: {min: 0.25, max: 2, start: 1}}\n")
    assert campaign.space.names == ("width",)


def test_rows_of_earlier_evolutions():
    space = lineage_space()
    metrics = {"precision": 0.5, "recall": 0.25, "map50": 0.4, "map50_95": 0.2, "val_box": 0.1, "val_obj": 0.2, "val_cls": 0.3}
    rows = [ResultRow(0, HYP, metrics, 0.22)]
    files = {"evolve.csv": "".join(evolve_csv(space, rows)), "old.txt": "".join(evolve_txt(space, rows))}
    campaign = read(MINIMAL + "seed_from: [evolve.csv, old.txt]\n", **files)
    assert len(campaign.imported) == 2
    assert campaign.imported[0].metrics == metrics
    assert campaign.imported[0].hyp == HYP
    assert tuple(campaign.imported[0].hyp) == space.names
    assert Campaign.from_document(json.loads(json.dumps(campaign.to_document()))) == campaign


# ---- what is refused, and the words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            MINIMAL + "space:\n  momentum: [0.7, 0.98, 0.3]\n",
            "campaign.yaml:4 space.momentum: lower 0.98 > upper 0.3; this looks like ultralytics order (min, max, gain): "
            "set space_format: ultralytics",
        ),
        (MINIMAL + "space: {lr0: [1, 0.1, 1e-5]}\n", "campaign.yaml:3 space.lr0: lower 0.1 > upper 1e-05; swap them"),
        (
            MINIMAL + "space_format: ultralytics\nspace: {lr0: [1, 1e-5, 1e-1]}\n",
            "campaign.yaml:4 space.lr0: lower 1 > upper 1e-05; this looks like yolov5 order (gain, lower, upper): "
            "set space_format: yolov5",
        ),
        (
            MINIMAL + "space: {lr0: [1e-5, 1e-1]}\n",
            "campaign.yaml:3 space.lr0: is [1e-05, 0.1]; "
            "this looks like ultralytics order (min, max): set space_format: ultralytics",
        ),
        (
            MINIMAL + "space: {momentun: [1, 0.6, 0.98]}\n",
            "campaign.yaml:3 space.momentun: is no gene of lineage yolov5; did you mean 'momentum'?",
        ),
        (MINIMAL + "space: {lr0: [1, .nan, 1]}\n", "campaign.yaml:3 space.lr0[1]: is nan; write a finite number"),
        (
            MINIMAL + "space: {lr0: [1, 0.02, 0.1]}\n",
            "campaign.yaml:3 space.lr0: default 0.01 is outside its bounds 0.02 to 0.1; "
            "add start: to space.lr0, or widen the bounds",
        ),
        (
            MINIMAL + "space: {lr0: {min: 1e-5, max: 0.1, mutation: add}}\n",
            "campaign.yaml:3 space.lr0.mutation: unknown key 'mutation'; known: gain, min, max, start, choices, integer",
        ),
        (
            MINIMAL + "space: {lr0: [1e-9, 1e-5, 0.1]}\n",
            "campaign.yaml:3 space.lr0: gain 1e-09; write 0, which fixes the gene, or a number from 0.001 to 1000",
        ),
        (
            MINIMAL + "fixed: [fl_gama]\n",
            "campaign.yaml:3 fixed[0]: 'fl_gama' is no gene of this campaign; did you mean 'fl_gamma'?",
        ),
        (
            MINIMAL + "hyp: other.yaml\n",
            "campaign.yaml:3 hyp: no file 'other.yaml'; give a path that starts at the campaign file's folder",
        ),
        (
            MINIMAL + "evolve: {strategy: optuna}\n",
            "campaign.yaml:3 evolve.strategy: 'optuna' is unknown; available: hybrid, yolov3-2019",
        ),
        (
            MINIMAL + "evolve: {strategy: yolov5-2021, parent: both}\n",
            "campaign.yaml:3 evolve.parent: is 'both'; write single or weighted",
        ),
        (
            MINIMAL + "evolve: {strategy: yolov5-2021, method: 2}\n",
            "campaign.yaml:3 evolve.method: is no option of strategy yolov5-2021; "
            "known: parents, parent, mutation_probability, sigma, faithful",
        ),
        (
            MINIMAL + "budget: {gpu_hours: -4}\n",
            "campaign.yaml:3 budget.gpu_hours: is -4; write a number above 0, at most 1e+09",
        ),
        (
            MINIMAL + "budget: {deadline: 2026-12-24T18:00}\n",
            "campaign.yaml:3 budget.deadline: is '2026-12-24T18:00'; write a moment with its offset from UTC, ",
        ),
        (
            MINIMAL + "lease: {requires: {labels: [a b]}}\n",
            "campaign.yaml:3 lease.requires.labels: is ['a b']; write a list of names such as [a100]; ",
        ),
        (
            MINIMAL + "lease: {requires: {device: tpu}}\n",
            "campaign.yaml:3 lease.requires.device: is 'tpu'; write one of cpu, cuda, mps",
        ),
        (
            MINIMAL + "budget: {candidates: 0}\n",
            "campaign.yaml:3 budget.candidates: is 0; write a whole number from 1 to 1000000",
        ),
        (MINIMAL + "budgets: {}\n", "campaign.yaml:3 budgets: unknown key 'budgets'; did you mean 'budget'?"),
        (
            MINIMAL + "lease: {heartbeat: 40s}\n",
            "campaign.yaml:3 lease.expire: 60s is less than two heartbeats of 40s; write 160s or more",
        ),
        (
            MINIMAL + "lease: {expire: soon}\n",
            "campaign.yaml:3 lease.expire: is 'soon'; write a time from 0.02s to 24h, such as 15s or 5m",
        ),
        (MINIMAL + "fitness: {mAP: 1}\n", "campaign.yaml:3 fitness.mAP: unknown key 'mAP'; "),
        (
            MINIMAL + "fitness: {map50: 0}\n",
            "campaign.yaml:3 fitness: the weights add up to 0; give a metric a weight above 0, ",
        ),
        (MINIMAL + "fitness: {map50: -1, f1: 2}\n", "campaign.yaml:3 fitness.map50: weight -1; write a number from 0 to 1e6"),
        ("base: {epochs: 1}\n", "campaign.yaml name: is missing; add name: with a short name such as bccd-yolov5n"),
        (
            "name: Big Name\nbase: {epochs: 1}\n",
            "campaign.yaml:1 name: is 'Big Name'; use a-z, 0-9, '.', '_' and '-', at most 63, ",
        ),
        ("name: 2026\nbase: {epochs: 1}\n", "campaign.yaml:1 name: is 2026; quote it"),
        ("name: a\n", "campaign.yaml base: is missing; add base: with data, model, epochs, imgsz and batch"),
        (
            "name: a\nbase: {imgsz: 640}\n",
            "campaign.yaml:2 base.epochs: is missing; add epochs: how long each candidate trains, ",
        ),
        (
            "name: a\nbase: {epochs: 1, lineage: yolov6}\n",
            "campaign.yaml:2 base.lineage: is 'yolov6'; write one of yolov5, yolov3-2019, yolov3-2020",
        ),
        ("name: a\nbase: {epochs: 1, lr: .inf}\n", "campaign.yaml:2 base.lr: is inf; write a finite number"),
        (MINIMAL + "name: b\n", "campaign.yaml:3: key 'name' is given twice, first on line 1; keep one of them"),
        (
            MINIMAL + "fixed: &f [lr0]\n",
            "campaign.yaml:3 fixed: anchor '&f' is not allowed; write the value out where it is used",
        ),
        (
            MINIMAL + "trainer: torch\n",
            "campaign.yaml:3 trainer: is 'torch'; write detector, {command: [program, argument, ..]} or ",
        ),
        (
            MINIMAL + "trainer: {command: python train.py}\n",
            "campaign.yaml:3 trainer.command: is 'python train.py'; write a list of texts: [python, train.py, --hyp, ..]",
        ),
        (
            MINIMAL + "trainer: {command: [x, '{hyp}']}\n",
            "campaign.yaml:3 trainer.results: is absent; give the file that the command writes, such as results: results.csv",
        ),
        (
            MINIMAL + "trainer: {command: [x, '{hypo}'], results: r.csv}\n",
            "campaign.yaml:3 trainer.command: unknown placeholder {hypo}; did you mean {hyp}?",
        ),
        (
            MINIMAL + "trainer: {command: [x, '--lr={lr0}'], results: r.csv}\n",
            "campaign.yaml:3 trainer.command: unknown placeholder {lr0}; known: {hyp}, {epochs}, {device}, {seed}, {dir}, ",
        ),
        (
            MINIMAL + "trainer: {command: [x, '{hyp'], results: r.csv}\n",
            "campaign.yaml:3 trainer.command: {hyp is not closed; write {hyp}",
        ),
        (MINIMAL + "trainer: {python: train.py}\n", "campaign.yaml:3 trainer.python: is 'train.py'; write 'module:function'"),
        (
            MINIMAL + "trainer: {python: 'm:f'}\nhyp: {width: 1}\n",
            "campaign.yaml space.width: has no bounds; write width: [1, lower, upper], or list it in fixed",
        ),
        (
            MINIMAL + "trainer: {python: 'm:f'}\nspace: {width: [1, 0, 2]}\n",
            "campaign.yaml:4 space.width: has no start value; add it to hyp, or write width: {min: .., max: .., start: ..}",
        ),
        (
            MINIMAL + "trainer: {python: 'm:f'}\nevolve: {strategy: yolov5-2021}\nspace: {width: {min: 0, max: 2, start: 0}}\n",
            "campaign.yaml:5 space: no gene can move under yolov5-2021: each is fixed, or starts at 0, which no "
            "factor changes; give one gene a gain above 0 and a start other than 0",
        ),
        (
            MINIMAL + "space: {optimizer: [SGD, Lion]}\n",
            "campaign.yaml:3 space.optimizer: 'Lion' is no optimizer; choices are auto, SGD, Adam, AdamW",
        ),
        (
            MINIMAL + "space: {optimizer: [1, 0, 2]}\n",
            "campaign.yaml:3 space.optimizer: is a gene of choices; write some of ['auto', 'SGD', 'Adam', 'AdamW']",
        ),
        (
            MINIMAL + "space: {optimizer: [SGD]}\n",
            "campaign.yaml:3 space.optimizer: is ['SGD']; list 2 to 50 different words, such as [SGD, AdamW], or [false, ",
        ),
        (
            MINIMAL + "trainer: {python: 'm:f'}\nspace: {mode: {choices: [fast, 1.5], start: fast}}\n",
            "campaign.yaml:4 space.mode.choices: is ['fast', 1.5]; list 2 to 50 different words",
        ),
        (
            MINIMAL + "trainer: {python: 'm:f'}\nspace: {mode: {choices: [fast, slow], start: medium}}\n",
            "campaign.yaml:4 space.mode.start: 'medium' is none of the choices; write one of ('fast', 'slow')",
        ),
        (
            MINIMAL + "trainer: {python: 'm:f'}\nspace: {mode: {choices: [fast, slow], min: 0}}\n",
            "campaign.yaml:4 space.mode.choices: a gene of choices has no min, max or integer; remove them, or the choices",
        ),
        (
            MINIMAL + "trainer: {python: 'm:f'}\nspace: {depth: {min: 1, max: 2.5, start: 1, integer: true}}\n",
            "campaign.yaml:4 space.depth: 1 in 1 to 2.5 are no whole numbers; write whole numbers",
        ),
        (
            MINIMAL + "space: {lr0: {start: fast}}\n",
            "campaign.yaml:3 space.lr0.start: is 'fast'; write a finite number, or list the choices",
        ),
        (MINIMAL + "seed_from: old.csv\n", "campaign.yaml:3 seed_from[0]: no file 'old.csv'; give a path that "),
        ("[]", "campaign.yaml: is [], not a mapping; write it as 'key: value' lines"),
        ("", "campaign.yaml name: is missing; "),
    ],
)
def test_refusals(text, line):
    assert problems(text)[0].startswith(line)


@pytest.mark.parametrize(
    ("hyp", "line"),
    [
        (
            hyp_text(copy_paste=None),
            "hyp.yaml copy_paste: gene copy_paste is absent from hyp.yaml; add 'copy_paste: 0', the default",
        ),
        (hyp_text(learning_rate=1), "hyp.yaml:30 learning_rate: is no gene of lineage yolov5; known: lr0, lrf, "),
        (
            hyp_text(lrf=2.5),
            "hyp.yaml:2 lrf: 2.5 is outside its bounds 0.01 to 1; change the value, or widen the bounds under space.lrf",
        ),
        (hyp_text(lr0=".nan"), "hyp.yaml:1 lr0: is nan; write a finite number"),
        (hyp_text(lr0="'0.01'"), "hyp.yaml:1 lr0: is '0.01'; write a finite number"),
        (hyp_text() + "lr0: 0.02\n", "hyp.yaml:30: key 'lr0' is given twice, first on line 1; keep one of them"),
        ("lr0: 0.01\n", "hyp.yaml: 27 genes are absent from hyp.yaml: lrf, momentum, "),
    ],
)
def test_faults_of_a_hyp_file_name_that_file(hyp, line):
    assert problems(MINIMAL + "hyp: hyp.yaml\n", **{"hyp.yaml": hyp})[0].startswith(line)


def test_several_absent_genes_are_all_named():
    got = problems(MINIMAL + "hyp: hyp.yaml\n", **{"hyp.yaml": hyp_text(box=None, mixup=None)})
    assert got == [
        "hyp.yaml box: gene box is absent from hyp.yaml; add 'box: 0.05', the default",
        "hyp.yaml mixup: gene mixup is absent from hyp.yaml; add 'mixup: 0', the default",
    ]


def test_all_problems_are_found_at_once():
    got = problems("name: A\nbase: {epochs: 0}\nspace: {lr0: [1, 2, 1]}\nbudget: {candidates: x}\nsped: 1\n")
    assert [line.split(":")[1].split()[1] for line in got] == ["name", "base.epochs", "space.lr0", "budget.candidates", "sped"]


def test_a_hostile_file_gives_a_bounded_answer():
    text = MINIMAL + "".join(f"key{i}: 1\n" for i in range(3000))
    assert len(problems(text)) == 100
    text = MINIMAL + "trainer: {python: 'm:f'}\nspace:\n" + "".join(f"  g{i}: [1, 0, 1]\n" for i in range(501))
    assert problems(text) == ["campaign.yaml:4 space: 501 genes; search at most 500"]


def test_old_results_that_fit_no_space():
    row = ("%10.3g" * 34) % tuple([0.1] * 34) + "\n"
    got = problems(MINIMAL + "seed_from: evolve.txt\n", **{"evolve.txt": row})
    assert got[0].startswith(
        "evolve.txt: 34 columns are 7 results and 27 hyps, the space has 29 genes; evolve with the genes of "
    )


def test_imported_rows_must_carry_the_metrics_of_fitness():
    files = {"evolve.txt": "".join(f"{x:10.3g}" for x in [0.1] * 7 + list(HYP.values()))}
    got = problems(MINIMAL + "fitness: {f1: 1}\nseed_from: evolve.txt\n", **files)
    assert got == [
        "campaign.yaml:4 seed_from[0]: metric 'f1' is missing; fitness needs 1*f1; "
        "set the weight of that metric to 0, or leave these rows out"
    ]


def test_requests_carry_no_file_names():
    document = {"name": "a", "base": {"epochs": 1}, "hyp": "hyp.yaml"}
    with pytest.raises(InvalidCampaign) as caught:
        Campaign.from_document(document)
    assert str(caught.value) == "request hyp: names file 'hyp.yaml', which a request cannot carry; send its content"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"genes": {}}, "request genes: is {}; write a list of {name, start, gain, min, max}"),
        ({"extra": 1}, "request extra: unknown key 'extra'; known: "),
        ({"imported": [{"hyp": {}, "metrics": {}}]}, "request imported[0].hyp: its genes are not those of the space: "),
        ({"notes": 3}, "request notes: is 3; write a list of texts"),
        ({"base": {"epochs": 1, "a": {1: 2}}}, "request base.a.1: key 1 is no text; quote it"),
        ({"name": None}, "request name: is missing; "),
        ({"evolve": {"seed": -1}}, "request evolve.seed: is -1; write a whole number from 0 to 2147483647"),
    ],
)
def test_documents_are_checked_as_files_are(change, line):
    with pytest.raises(InvalidCampaign) as caught:
        Campaign.from_document({**read(MINIMAL).to_document(), **change})
    assert str(caught.value).startswith(line)


# ---- laws --------------------------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=6,
)


@st.composite
def documents(draw):
    own = draw(st.booleans())
    bounded = st.tuples(st.floats(-1e3, 1e3), st.floats(0.001, 1e3), st.floats(0.1, 0.9))
    document = {
        "name": draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)),
        "base": {
            **draw(st.dictionaries(st.text("abc", min_size=1), _json, max_size=3)),
            "epochs": draw(st.integers(1, 300)),
        },
        "evolve": {"strategy": "yolov5-2021", "seed": draw(st.integers(0, 2**31 - 1)), "sigma": draw(st.floats(0.001, 1))},
        "budget": {"candidates": draw(st.integers(1, 10**6))},
        "fitness": draw(st.dictionaries(st.sampled_from(["precision", "f1", "map50_95"]), st.floats(0.01, 10), min_size=1)),
        "lease": {"heartbeat": draw(st.floats(0.01, 20)), "expire": draw(st.floats(40, 80000))},
        "space": {"lr0": {"min": 1e-5, "max": 0.5, "start": draw(st.floats(1e-5, 0.5)), "gain": draw(st.floats(0.1, 3))}},
    }
    if own:
        document["trainer"] = draw(st.sampled_from([{"python": "a.b:c"}, {"command": ["x", "{hyp}"], "results": "r.csv"}]))
        for name in draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), max_size=4)):
            lower, width, share = draw(bounded)
            document["space"].setdefault(name, {"min": lower, "max": lower + width, "start": lower + width * share})
    else:
        document["fixed"] = draw(st.lists(st.sampled_from(["momentum", "mixup", "box"]), unique=True))
    return document


@settings(max_examples=80, deadline=None, derandomize=True)
@given(documents())
def test_the_document_carries_everything(document):
    campaign = Campaign.from_document(document)
    sent = json.loads(json.dumps(campaign.to_document(), sort_keys=True, allow_nan=False))  # a database keeps no order of keys
    again = Campaign.from_document(sent)
    assert again == campaign
    assert again.space.names == campaign.space.names
    assert again.to_document() == campaign.to_document()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "base", "trainer", "genes", "hyp", "space", "space_format", "fixed", "fitness", "evolve", "budget", "x"],
        ),
        _json | st.dictionaries(st.sampled_from(["epochs", "lr0", "seed", "kind", "python", "command", "failed"]), _json),
    )
)
def test_anything_is_read_or_refused(document):
    try:
        Campaign.from_document(document)
    except InvalidCampaign as error:
        found = error
    else:
        return
    assert len(str(found).splitlines()) == len(found.problems) > 0


def test_choices_are_read_from_every_place():
    own = read(
        MINIMAL + "trainer: {python: 'm:f'}\nhyp: {mode: slow, width: 3}\nspace:\n  mode: [fast, slow]\n"
        "  flip: {choices: [false, true], start: true}\n  width: {min: 1, max: 9, integer: true}\n"
    ).space
    assert [(gene.name, gene.start, gene.choices, gene.integer) for gene in own] == [
        ("mode", 1.0, ("fast", "slow"), False), ("width", 3.0, (), True), ("flip", 1.0, (False, True), False),
    ]  # fmt: skip
    assert own.decode(own.start) == {"mode": "slow", "width": 3.0, "flip": True}
    assert own.encode(own.decode(own.start)) == own.start
    scenario = read(MINIMAL.replace("epochs", "optimizer: Adam, epochs") + "space: {optimizer: [SGD, Adam]}\n").space
    assert (scenario["optimizer"].start, scenario["optimizer"].fixed) == (1.0, False)
    assert scenario.names[:-1] == lineage_space().names
    # What an evolution has found is a hyp file again, also its choices.
    fixed = read(MINIMAL + "hyp: hyp.yaml\n", **{"hyp.yaml": hyp_text(optimizer="SGD", rect="true")})
    assert [(fixed.space[name].choices, fixed.space[name].fixed) for name in ("optimizer", "rect")] == [
        (("SGD",), True),
        ((True,), True),
    ]
    for campaign in (fixed, read(MINIMAL + "space: {rect: [false, true]}\n")):
        assert Campaign.from_document(json.loads(json.dumps(campaign.to_document()))) == campaign


@pytest.mark.parametrize("lineage", LINEAGES)
def test_a_campaign_takes_the_space_of_its_lineage(lineage):
    campaign = Campaign.from_document({"name": "a", "base": {"epochs": 1, "lineage": lineage}})
    assert (campaign.lineage, campaign.space) == (lineage, lineage_space(lineage))
    assert Campaign.from_document(campaign.to_document()) == campaign
    inert = [gene.name for gene in preflight(campaign, {"classes": 1, "polygons": False}).genes if gene.status == "inert"]
    assert inert == ["cls", "cls_pw", *(["copy_paste"] if lineage == "yolov5" else [])]
