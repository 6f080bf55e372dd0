"""What people and machines send is parsed or refused with the parser's own error, whatever it is."""

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

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
