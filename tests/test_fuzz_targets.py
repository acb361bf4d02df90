"""The promises that `scripts/fuzz` tries to break, on few inputs: seeds, and changes of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.seeds import SEEDS
from benchmarks.fuzz.targets import TARGETS

_JUNK = st.binary(max_size=8)


@st.composite
def inputs(draw: st.DrawFn, name: str) -> bytes:
    """A seed with some of it cut out, doubled or replaced; or bytes of any kind."""
    data = draw(st.sampled_from(SEEDS[name]) | st.binary(max_size=200))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, len(data)))
        middle = draw(st.sampled_from((b"", data[start:stop] * 2)) | _JUNK)
        data = data[:start] + middle + data[stop:]
    return data


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_keep_the_promises(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.data())
@settings(max_examples=60)
def test_what_is_near_the_seeds_keeps_the_promises(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(inputs(name)))
