"""Series and samples: identity, canonical tags, the dedup key, and what is refused."""

import json
import random
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from belatwist.errors import BelaError, NonFiniteValueError
from belatwist.model import REAL, TEXT, Sample, Series, sample
from tests import strategies

Tags = dict[str, str]

# Few characters, all of them structural, so that careless joining would give the same text often.
_tight = st.text("\\|,=a0", max_size=3)
_tight_samples = st.builds(
    Sample,
    st.builds(
        Series.of,
        _tight,
        _tight,
        st.dictionaries(_tight, _tight, max_size=2),
        value_type=st.sampled_from([REAL, TEXT]),
    ),
    st.integers(0, 11),
    st.just(0.0),
)


def identity(one: Sample) -> tuple[object, ...]:
    """What makes a sample itself, without hashing or joining."""
    series = one.series
    return series.name, series.device_id, series.tags, series.value_type, one.timestamp_ms


@pytest.mark.parametrize(
    ("series", "timestamp_ms", "digest"),
    [
        # Each digest is sha256sum's, of the text in the comment.
        pytest.param(  # system.load_1m|1697040000000|belabox-01|0
            Series.of("system.load_1m", "belabox-01"),
            1697040000000,
            "4b0ee7f69e54a19d36a97c0a38ebf70c837b41ccafb555f0dbc4e000c73e37f0",
            id="no tags",
        ),
        pytest.param(  # cpu.usage_percent|1697040000000|belabox-01|core=all|0
            Series.of("cpu.usage_percent", "belabox-01", {"core": "all"}),
            1697040000000,
            "e2940575374a788e9f677fa42e9a159ea888a6802f4237a476c49414eeccfb7f",
            id="one tag",
        ),
        pytest.param(  # disk.read_bytes_total|1|d|a=1,b=2|0
            Series.of("disk.read_bytes_total", "d", {"b": "2", "a": "1"}),
            1,
            "d2120919ce6eb3e5415721975000e9184108012eeabe276d796cac1083d99699",
            id="tags sorted",
        ),
        pytest.param(  # srt.state|1697040000123|belabox-01|1
            Series.of("srt.state", "belabox-01", value_type=TEXT),
            1697040000123,
            "a8f877923aeb4e75b8772912ecdbaa4bd2aaed49e5f10694e6e02f0c5eb2fd5c",
            id="text",
        ),
        pytest.param(  # a\|b|0|c\,d|e\=f=g\\h|0
            Series.of("a|b", "c,d", {"e=f": "g\\h"}),
            0,
            "2a4793f2ac2570955aece96a597d56392af04f64cc498fffb699f360df02302e",
            id="escaped",
        ),
    ],
)
def test_dedup_key_is_the_documented_hash(series: Series, timestamp_ms: int, digest: str) -> None:
    """The key is SHA-256 of the documented text; structural characters in a part are escaped."""
    assert Sample(series, timestamp_ms, 1.0).dedup_key == digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            Sample(Series.of("a|1", "b"), 2, 0.0),
            Sample(Series.of("a", "2|b"), 1, 0.0),
            id="bar moved from name to device",
        ),
        pytest.param(
            Sample(Series.of("a", "d|k=v"), 1, 0.0),
            Sample(Series.of("a", "d", {"k": "v"}), 1, 0.0),
            id="tags spelled out in the device",
        ),
        pytest.param(
            Sample(Series.of("a", "d", {"a": "1,b=2"}), 1, 0.0),
            Sample(Series.of("a", "d", {"a": "1", "b": "2"}), 1, 0.0),
            id="second tag spelled out in the first",
        ),
        pytest.param(
            Sample(Series.of("a", "d", {"a=b": "c"}), 1, 0.0),
            Sample(Series.of("a", "d", {"a": "b=c"}), 1, 0.0),
            id="equals sign moved from key to value",
        ),
        pytest.param(
            Sample(Series.of("a", "d", {"k": "v\\", "l": "w"}), 1, 0.0),
            Sample(Series.of("a", "d", {"k": "v\\,l=w"}), 1, 0.0),
            id="backslash before the comma",
        ),
        pytest.param(
            Sample(Series.of("a", "d"), 1, 0.0),
            Sample(Series.of("a", "d", value_type=TEXT), 1, 0.0),
            id="type",
        ),
        pytest.param(
            Sample(Series.of("\ud83d\ude00", "d"), 1, 0.0),
            Sample(Series.of("\U0001f600", "d"), 1, 0.0),
            id="surrogates and the character they would make",
        ),
    ],
)
def test_dedup_key_of_look_alikes(one: Sample, other: Sample) -> None:
    """Two samples that careless joining would spell alike have different keys."""
    assert one.dedup_key != other.dedup_key


@given(_tight_samples, _tight_samples)
def test_dedup_key_is_equal_only_for_equal_identities(one: Sample, other: Sample) -> None:
    """Keys are equal exactly when the identities are, over names that invite collisions."""
    assert (one.dedup_key == other.dedup_key) == (identity(one) == identity(other))


@given(st.lists(_tight_samples, min_size=40, max_size=60))
def test_dedup_keys_of_many(many: list[Sample]) -> None:
    """As many keys as identities, whichever pair among many is compared."""
    assert len({s.dedup_key for s in many}) == len({identity(s) for s in many})


@given(
    strategies.anything,
    strategies.anything,
    strategies.tags(strategies.anything, strategies.anything),
    st.randoms(use_true_random=False),
)
def test_tag_order_is_no_part_of_the_identity(
    name: str, device: str, tags: Tags, rng: random.Random
) -> None:
    """The same tags in another order make an equal series, hash, JSON and key."""
    pairs = list(tags.items())
    rng.shuffle(pairs)
    one, other = Series.of(name, device, tags), Series.of(name, device, dict(pairs))
    assert one == other
    assert hash(one) == hash(other)
    assert one.tags_json == other.tags_json
    assert Sample(one, 1, 2.0).dedup_key == Sample(other, 1, 3.0).dedup_key


@given(strategies.tags())
@example({"b": "", "a": "é", "": "x"})
def test_tags_are_canonical(tags: Tags) -> None:
    """Tags are sorted by key, none of them empty; their JSON is minified and gives them back."""
    series = Series.of("a", "d", tags)
    assert list(series.tags) == sorted(series.tags)
    kept = {k: v for k, v in tags.items() if v}
    assert dict(series.tags) == kept
    assert json.loads(series.tags_json) == kept
    assert list(json.loads(series.tags_json)) == sorted(kept)


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        (None, "{}"),
        ({}, "{}"),
        ({"a": ""}, "{}"),
        ({"b": "2", "a": "1"}, '{"a":"1","b":"2"}'),
        ({"zone": "Ärmel"}, '{"zone":"Ärmel"}'),
    ],
)
def test_tags_json(tags: Tags | None, text: str) -> None:
    """The JSON of tags has no spaces, no escapes that UTF-8 does not need, and no empty tag."""
    assert Series.of("a", "d", tags).tags_json == text


def test_empty_tag_is_no_tag() -> None:
    """A tag with an empty value makes the series that the tag's absence makes."""
    assert Series.of("a", "d", {"t": ""}) == Series.of("a", "d")


def test_priority_is_no_part_of_the_identity() -> None:
    """Series that differ in priority only are the same series, with the same key."""
    high, low = Series.of("a", "d", priority=0), Series.of("a", "d", priority=3)
    assert high == low
    assert len({high, low}) == 1
    assert sample(high, 1, 1).dedup_key == sample(low, 1, 1).dedup_key


@pytest.mark.parametrize(
    "other",
    [
        Series.of("b", "d", {"t": "1"}),
        Series.of("a", "e", {"t": "1"}),
        Series.of("a", "d", {"t": "2"}),
        Series.of("a", "d", {"u": "1"}),
        Series.of("a", "d"),
        Series.of("a", "d", {"t": "1"}, value_type=TEXT),
    ],
)
def test_each_part_of_the_identity_counts(other: Series) -> None:
    """Series that differ in one part are different, and so are their samples' keys."""
    series = Series.of("a", "d", {"t": "1"})
    assert series != other
    assert len({series, other}) == 2
    assert Sample(series, 1, 0.0).dedup_key != Sample(other, 1, 0.0).dedup_key


@given(strategies.series(), strategies.series())
def test_equal_series_hash_alike(one: Series, other: Series) -> None:
    """Equality is that of the identity, and equal series find each other in a dict."""
    same = identity(Sample(one, 0, 0.0)) == identity(Sample(other, 0, 0.0))
    assert (one == other) == same
    assert (other in {one: None}) == same


def test_series_are_frozen() -> None:
    """A series cannot change under the caches that are keyed by it."""
    series = Series.of("a", "d")
    with pytest.raises(FrozenInstanceError):
        setattr(series, "name", "b")  # noqa: B010 - the assignment itself is a type error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_is_refused(value: float) -> None:
    """NaN and the infinities make no sample; the error says of which series, on one line."""
    with pytest.raises(NonFiniteValueError) as caught:
        sample(Series.of("cpu.usage_percent", "d", {"core": "0"}), 1, value)
    assert str(caught.value) == (
        f'cpu.usage_percent {{"core":"0"}}: {value} is not a finite number'
    )
    assert isinstance(caught.value, BelaError)


@given(strategies.series(), strategies.timestamps, strategies.numbers | st.integers(0, 2**64 - 1))
def test_samples_are_floats(series: Series, timestamp_ms: int, value: float) -> None:
    """Every finite number makes a sample whose value is a float, an integer's nearest one."""
    one = sample(series, timestamp_ms, value)
    assert tuple(one) == (series, timestamp_ms, float(value))
    assert type(one.value) is float
