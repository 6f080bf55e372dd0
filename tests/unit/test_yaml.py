"""The strict YAML reader: numbers are numbers, and what would mean something else than it seems to say is refused."""

import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evolution.yaml import YamlError, load, load_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E-2", 0.01),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+1.5e+2", 150.0),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("no", "no"),
        ("off", "off"),
        ("~", None),
        ("", None),
        ("'1e-5'", "1e-5"),
        ("1_000", "1_000"),
        ("2026-12-24", "2026-12-24"),
        ("12:30:45", "12:30:45"),
        ("-.inf", float("-inf")),
        ("[1, 1e-5, 1e-1]", [1, 1e-5, 0.1]),
        ("names: {0: person, 1: no}", {"names": {0: "person", 1: "no"}}),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    got = load(text, "f.yaml")
    assert got == value
    assert type(got) is type(value)


def test_integers_stay_integers_and_floats_floats():
    assert [type(x) for x in load("[1, 1.0, 1e0, true]", "f")] == [int, float, float, bool]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr0: 1\nlrf: 2\nlr0: 3\n", "f.yaml:3: key 'lr0' is given twice, first on line 1; keep one of them"),
        ("a: &x 1\nb: *x\n", "f.yaml:1 a: anchor '&x' is not allowed; write the value out where it is used"),
        ("b: *x\n", "f.yaml:1 b: alias '*x' is not allowed; write the value out"),
        ("a:\n  <<: {b: 1}\n", "f.yaml:2 a: merge key '<<' is not allowed; write the keys out"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "f.yaml:1 a: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed; write the plain value",
        ),
        ("---\na: 1\n---\nb: 2\n", "f.yaml:3: a second document starts here; keep one document in a file"),
        ("? [a, b]\n: 1\n", "f.yaml:1: a list or mapping is used as a key; quote texts that start with [ or {"),
        ("true: 1\n", "f.yaml:1: key 'true' is no text; quote it"),
        ("a: 1\nb: 1\n\tc: 2\n", "f.yaml:3: found character '\\t' that cannot start any token"),
        ("a: b: c\n", "f.yaml:1: mapping values are not allowed here; check the indentation, and quote a text that holds ': '"),
        ("a: 1\nb: \x00\n", "f.yaml:2: character #x0000 is not allowed; save the file as plain UTF-8 text"),
        ("[" * 21 + "]" * 21, "f.yaml:1 [0][0]"),
        ("a: " + "9" * 500, "f.yaml:1 a: a number of 500 digits; write a number that fits, or quote it"),
        ("x" * (256 * 1024 + 1), "f.yaml: larger than 256 KB; keep only what the file is for"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2: "),
    ],
)
def test_refusals_are_one_line_with_place_and_remedy(text, message):
    with pytest.raises(YamlError) as caught:
        load(text, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.problem.remedy


def test_lines_of_keys_and_items():
    document = load_document("# head\nspace:\n  lr0: [1, 2]\n  lrf:\n    - 1\n    - 2\n", "f")
    assert document.value == {"space": {"lr0": [1, 2], "lrf": [1, 2]}}
    assert [document.line(p) for p in [("space",), ("space", "lr0"), ("space", "lrf", 1)]] == [2, 3, 6]
    assert document.line(("nowhere",)) is None


def test_twenty_levels_are_read():
    assert load("[" * 20 + "]" * 20, "f")


_scalars = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text("abc: #'\"-\n", max_size=9)
)
_values = st.recursive(
    _scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text("abcd", min_size=1), v, max_size=3), max_leaves=9
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(_values)
def test_reads_what_pyyaml_writes(value):
    assert load(pyyaml.safe_dump(value), "f") == value


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text("ab01:-[]{}&*!<>|#'\"%@` \n\t,?e.\x00\u2028é", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text):
    message = ""
    try:
        load(text, "f.yaml")
    except YamlError as error:
        message = str(error)
    assert message == "" or message.startswith("f.yaml")
    assert len(message.splitlines()) <= 1
