from pathlib import Path

import numpy as np
import pytest

from models.causal import FLAGS
from stream.messages import LANES
from tests.train.corpus import small_store
from train.config import MixtureConfig
from train.errors import DataError
from train.mixture import Mixture, hide_newest
from train.pools import Pool, read_pool
from train.sequences import Sample
from train.store import Store

HOP = 250_000_000
ALONE = {"beside_words": 0, "beside_others": 0}
TOGETHER = {"beside_words": 1, "beside_others": 1}
CORPORA = ("mosi", "sst", "meld", "ravdess", "fer2013")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("features"))


def drawn(
    store: Store, count: int = 200, *, max_steps: int = 120, corpora: tuple[str, ...] = CORPORA, **changed: object
) -> list[Sample]:
    config = MixtureConfig.model_validate({"corpora": dict.fromkeys(corpora, 1.0), **changed})
    pools = {corpus: read_pool(store, corpus, "train") for corpus in corpora}
    mixture = Mixture(pools, config, hop_ns=HOP, max_steps=max_steps)
    random = np.random.default_rng(3)
    return [mixture.draw(random) for _ in range(count)]


def there(sample: Sample) -> set[str]:
    return {lane for lane in LANES if sample.lanes[lane][:, -1].any()}


def test_all_lanes_are_of_one_length_and_within_the_longest(store: Store) -> None:
    for sample in drawn(store, max_steps=9):
        assert {len(rows) for rows in sample.lanes.values()} == {sample.steps}
        assert 1 <= sample.steps <= 9
        assert all(np.isfinite(rows).all() and rows.dtype == np.float32 for rows in sample.lanes.values())
        assert -3 <= sample.target <= 3


def test_the_same_generator_gives_the_same_sequences(store: Store) -> None:
    for one, other in zip(drawn(store, 30), drawn(store, 30), strict=True):
        assert one.target == other.target
        assert all(np.array_equal(one.lanes[lane], other.lanes[lane]) for lane in LANES)


def test_without_companions_an_item_is_by_itself_and_with_them_all_lanes_are_seen_together(store: Store) -> None:
    assert {frozenset(there(sample)) for sample in drawn(store, lag=0, **ALONE)} == {frozenset([lane]) for lane in LANES}
    together = [there(sample) for sample in drawn(store, lag=0, **TOGETHER)]
    assert sum(found == set(LANES) for found in together) > 150  # where nothing of like sentiment is found, there is none


def test_companions_are_of_like_sentiment(store: Store) -> None:
    """In the small store the first column of sound and face gives the sentiment away, to within its noise."""
    samples = drawn(store, 300, corpora=("mosi", "fer2013"), neutral=0, contrary=0, lag=0, like=0.4, **TOGETHER)
    pairs = [(sample.lanes["vision"][0, 0], sample.target) for sample in samples if there(sample) == {"text", "vision"}]
    shown, target = np.array(pairs).T
    assert len(pairs) > 200
    assert np.abs(shown - 0.5 - target).max() < 0.4 + 0.5 + 1e-6
    contrary = drawn(store, 300, corpora=("mosi", "fer2013"), neutral=0, contrary=1, lag=0, beside_words=1, beside_others=0)
    shown, target = np.array([(s.lanes["vision"][0, 0], s.target) for s in contrary if there(s) == {"text", "vision"}]).T
    assert np.abs(shown - 0.5 + target).max() < 0.5 + 0.5 + 1e-6


def test_missing_lanes_are_unknown_or_absent_as_often_as_is_asked(store: Store) -> None:
    for known_absent in (0.0, 1.0):
        for sample in drawn(store, 50, lag=0, known_absent=known_absent, **ALONE):
            for lane in set(LANES) - there(sample):
                assert (sample.lanes[lane][:, -FLAGS] == known_absent).all()
                assert not sample.lanes[lane][:, :-FLAGS].any()


def test_classes_are_balanced_when_they_are_to_be(store: Store) -> None:
    pool = read_pool(store, "mosi", "train")
    negative = [n for n in range(len(pool.entries)) if pool.sentiment(n) < -1]
    chosen = [*negative, len(pool.entries) - 1]  # and the most positive one
    uneven = Pool([pool.entries[n] for n in chosen], [pool.features[n] for n in chosen])
    random = np.random.default_rng(0)
    share = {balance: np.mean([uneven.sentiment(uneven.draw(random, balance)) > 0 for _ in range(2000)]) for balance in (0, 1)}
    assert share[0] == pytest.approx(1 / len(chosen), abs=0.03)
    assert share[1] == pytest.approx(1 / 2, abs=0.05)


def test_near_keeps_within_and_says_when_there_is_none(store: Store) -> None:
    pool, random = read_pool(store, "sst", "train"), np.random.default_rng(0)
    for _ in range(100):
        number = pool.near(random, 1.0, 0.3)
        assert number is not None
        assert abs(pool.sentiment(number) - 1.0) <= 0.3
    assert pool.near(random, 9.0, 0.3) is None


def test_words_that_lag_are_unknown_and_those_before_are_held() -> None:
    text = np.arange(1, 6, dtype=np.float32)[:, None] * np.ones((5, 770), np.float32)
    before = text.copy()
    hide_newest(text, 0)
    assert np.array_equal(text, before)
    hide_newest(text, 2)
    assert np.array_equal(text[:3], before[:3])
    assert (text[3:, :-FLAGS] == 3).all()
    assert not text[3:, -FLAGS:].any()
    hide_newest(text, 9)
    assert not text.any()


def test_a_corpus_with_nothing_to_use_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run python -m train\.prepare nothing"):
        read_pool(store, "nothing", "train")
    empty = Store(tmp_path)
    empty.write_manifest("sst", [])
    with pytest.raises(DataError, match="sst has nothing to use in its train split"):
        read_pool(empty, "sst", "train")
