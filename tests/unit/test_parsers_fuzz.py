"""What people and machines send is parsed or refused with the parser's own error, whatever it is."""

import contextlib
import json
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from benchmarks.parsers import PARSERS, mutated
from evolution import yaml
from evolution.campaign import Campaign
from evolution.problems import InvalidCampaign, InvalidInput
from hypevolve import credentials
from hypevolve.errors import Invalid
from server import limits
from server.errors import Invalid as TooDeep

_YAML = ["a: ", "- ", "? ", "[", "]", "{", "}", "&a ", "*a ", "!!x ", "<<: ", "'", '"', "\n", "  ", "1e5", "~", "|", "#", "\t"]
PIECES = st.lists(st.sampled_from(_YAML))
_KEYS = ["name", "base", "space", "hyp", "evolve", "budget", "lease", "retries", "fitness", "trainer", "fixed", "epochs", "x"]
KEYS = st.sampled_from(_KEYS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(PIECES.map("".join) | st.text(max_size=200))
def test_yaml_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        yaml.load(text, "fuzz")


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_a_campaign_is_read_or_refused(document: dict[str, object]) -> None:
    with contextlib.suppress(InvalidCampaign):
        Campaign.from_document(document)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_depth_is_counted_in_whatever_comes(body: bytes) -> None:
    with contextlib.suppress(TooDeep):
        limits.check_depth(body)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"hyp_[0-9a-f]{0,13}_[A-Za-z0-9_-]{0,44}"))
def test_a_token_has_its_form_or_is_refused_without_being_told(text: str) -> None:
    try:
        credentials.token(text, None, {})
    except Invalid as error:
        said = str(error)
    else:
        said = ""
    assert len(text) < 8 or text not in said


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_its_seeds_and_refuses_or_reads_whatever_else_comes(name: str) -> None:
    """Without guidance, in short; the long form is `make fuzz`."""
    parser, chance = PARSERS[name](), random.Random(name)
    for seed in parser.seeds:
        parser.feed(seed)
    with contextlib.suppress(*parser.refusals):
        parser.parse(parser.seeds[0])
    for _ in range(100):
        data = mutated(parser.seeds, chance)
        try:
            parser.feed(data)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error} from {data[:2000]!r}")


def _coco(**changes: object) -> bytes:
    document = json.loads(PARSERS["coco"]().seeds[0])
    document["annotations"] = [document["annotations"][0] | changes]
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("coco", b'{"images": ' + b"[" * 100_000),
        ("coco", b'{"images": ' + b"9" * 10_000 + b"}"),
        ("coco", _coco().replace(b"file_name", b"f le_name")),
        ("coco", _coco(image_id=[1])),
        ("coco", _coco(segmentation=[1, 2])),
        ("coco", _coco(bbox=[10**400, 1, 1, 1])),
        ("coco", _coco().replace(b'"a.png"', b'"' + b"a" * 5000 + b'"')),
        ("coco", _coco().replace(b'"width": 8', b'"width": NaN')),
        ("data.yaml", b"train: " + b"a" * 5000 + b"\nval: images\nnames: [cat, dog]\n"),
        ("data.yaml", b"train: images\nval: images\nnc: 1000000000\n"),
        ("safetensors", save({"a": np.ones(1)}, metadata={"hypevolve.detector": "[1]"})),
        ("safetensors", save({"a": np.ones(1)}, metadata={"hypevolve.detector": "[" * 100_000})),
        ("results.json", b"[" * 100_000),
        ("results.csv", b"epoch, map50\n1, " + b"9" * 200_000 + b"\n"),
    ],
)
def test_what_once_crashed_a_parser_is_refused(name: str, data: bytes) -> None:
    parser = PARSERS[name]()
    with pytest.raises(parser.refusals) as refused:
        parser.parse(data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("claim", [b"r\0\0\0\4", b"\x8e\0\0\0\x20\0\0\0\0", b"\x96\0\0\0\x20\0\0\0\0"])
def test_a_small_pickle_claims_no_memory(claim: bytes) -> None:
    """A place in the memo, and texts of a length, half a gigabyte and more each."""
    parser = PARSERS["pickle"]()
    tracemalloc.start()
    with pytest.raises(parser.refusals):
        parser.parse(b"\x80\5}" + claim + b".")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
