import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from tests.train.one_line import error_of
from train import store as module
from train.errors import DataError, TrainError
from train.items import SPLITS
from train.store import Entry, Store, replacing

RNG = np.random.default_rng(0)
TEXT = {"vectors": RNG.normal(size=(3, 768)).astype(np.float32), "ends_ns": np.array([1, 2, 2**60]), "length_ns": np.array([7])}
WINDOWS = {"inputs": RNG.normal(size=(4, 574)).astype(np.float32), "restart": np.array([True, False, False, True])}
FACE = {"face": RNG.normal(size=58).astype(np.float32)}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features")


def entry(place=0, shard="0123", failure=None, name=None):
    return Entry(name or f"item-{place}", "train", "happy", 1.8, None if failure else shard, place, failure)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- shards


def test_features_come_back_bit_for_bit_in_the_order_asked_for(store):
    store.write_shard("a", [TEXT, WINDOWS])
    store.write_shard("b", [FACE])
    asked = [entry(1, "a"), entry(0, "b"), entry(0, "a"), entry(1, "a")]
    for found, expected in zip(store.features(asked), [WINDOWS, FACE, TEXT, WINDOWS], strict=True):
        same(found, expected)
    assert files(store.folder) == ["shards/a.safetensors", "shards/b.safetensors"]


KINDS = st.sampled_from([np.float32, np.int64, np.bool_])
FEATURES = st.dictionaries(
    st.sampled_from(["vectors", "ends_ns", "length_ns", "inputs", "restart", "face"]),
    st.builds(lambda kind, *shape: (np.indices(shape).sum(0) % 3).astype(kind), KINDS, st.integers(1, 4), st.integers(0, 3)),
    min_size=1,
)
REASONS = st.text(min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(found=st.lists(st.one_of(FEATURES, REASONS), max_size=14))
def test_whatever_was_found_comes_back_and_failures_keep_their_reasons(tmp_path_factory, found):
    store = Store(tmp_path_factory.mktemp("store"))
    store.write_shard("x", found)
    assert store.read_failures("x") == {place: each for place, each in enumerate(found) if isinstance(each, str)}
    there = [place for place, each in enumerate(found) if not isinstance(each, str)]
    for features, place in zip(store.features([entry(place, "x") for place in there]), there, strict=True):
        same(features, found[place])


def test_an_item_that_failed_has_no_features_to_ask_for(store):
    with pytest.raises(ValueError, match="item-0 has no features: no face found"):
        store.features([entry(failure="no face found")])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_an_error_that_names_item_and_feature(store, bad):
    inputs = WINDOWS["inputs"].copy()
    inputs[2, 100] = bad
    store.write_shard("x", [TEXT, WINDOWS | {"inputs": inputs}])
    same(store.features([entry(0, "x")])[0], TEXT)
    message = error_of(lambda: store.features([entry(0, "x"), entry(1, "x")]), DataError)
    assert message == f"item-1: inputs is not finite in {store.shard('x')}; delete it and prepare anew"


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:-1], lambda whole: b"\xff" + whole[1:]])
def test_a_damaged_shard_is_an_error_that_names_it(store, damage):
    store.write_shard("x", [TEXT, "no face found"])
    store.shard("x").write_bytes(damage(store.shard("x").read_bytes()))
    for read in (lambda: store.features([entry(0, "x")]), lambda: store.read_failures("x")):
        message = error_of(read, DataError)
        assert message.startswith(f"{store.shard('x')} ")
        assert message.endswith("; delete it and run train.prepare again")


def test_a_shard_that_is_not_there(store):
    for read in (lambda: store.features([entry(0, "x")]), lambda: store.read_failures("x")):
        assert str(store.shard("x")) in error_of(read, DataError)


@pytest.mark.parametrize("metadata", [None, {}, {"failures": "{"}, {"failures": "[1]"}, {"failures": '{"one": "x"}'}])
def test_a_file_of_tensors_that_is_no_shard(store, metadata):
    store.shard("x").parent.mkdir(parents=True)
    module.save_file({"weight": np.zeros(3)}, store.shard("x"), metadata)
    for read in (lambda: store.features([entry(0, "x")]), lambda: store.read_failures("x")):
        assert str(store.shard("x")) in error_of(read, DataError)


def test_a_manifest_that_does_not_fit_its_shard_is_an_error(store):
    store.write_shard("x", [TEXT, "no face found", FACE])
    for place in (1, 3):
        message = error_of(lambda place=place: store.features([entry(place, "x")]), DataError)
        assert message == f"{store.shard('x')} lacks item-{place}; delete it and run train.prepare again"


# --- manifests


ENTRIES = st.builds(
    Entry,
    id=st.text(max_size=20),
    split=st.sampled_from(SPLITS),
    label=st.text(max_size=20),
    sentiment=st.none() | st.floats(-3, 3),
    shard=st.none() | st.text("0123456789abcdef", min_size=20, max_size=20),
    place=st.integers(0, 127),
    failure=st.none() | st.text(max_size=50),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ENTRIES, max_size=6))
def test_a_manifest_comes_back_as_it_was_a_line_an_item(tmp_path_factory, entries):
    store = Store(tmp_path_factory.mktemp("store"))
    store.write_manifest("sst", entries)
    assert store.read_manifest("sst") == entries
    assert (store.folder / "sst.jsonl").read_bytes().count(b"\n") == len(entries)


def test_a_corpus_that_was_not_prepared(store):
    message = error_of(lambda: store.read_manifest("sst"), DataError)
    path = store.folder / "sst.jsonl"
    assert message == f"{path} cannot be read: No such file or directory; run python -m train.prepare sst"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda line: line[:-20], id="cut"),
        pytest.param(lambda line: b"", id="empty line"),
        pytest.param(lambda line: b"null", id="null"),
        pytest.param(lambda line: b"[1, 2]", id="list"),
        pytest.param(lambda line: b'{"id": "a"}', id="fields missing"),
        pytest.param(lambda line: line[:-1] + b', "more": 1}', id="fields more"),
        pytest.param(lambda line: line.replace(b"happy", b"h\xe9ppy"), id="encoding"),
    ],
)
def test_a_damaged_manifest_is_an_error_that_says_what_to_do(store, damage):
    store.write_manifest("sst", [entry(0), entry(1)])
    path = store.folder / "sst.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + damage(second) + b"\n")
    message = error_of(lambda: store.read_manifest("sst"), DataError)
    assert message.startswith(f"{path} is damaged: ")
    assert message.endswith("; run python -m train.prepare sst")


def test_what_a_manifest_holds_can_be_read_by_anything(store):
    store.write_manifest("sst", [entry(3, failure="no face found")])
    assert json.loads((store.folder / "sst.jsonl").read_text()) == {
        "id": "item-3",
        "split": "train",
        "label": "happy",
        "sentiment": 1.8,
        "shard": None,
        "place": 3,
        "failure": "no face found",
    }


# --- nothing half-written has a final name


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken(*_, **__):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


FULL_DISK = pytest.mark.parametrize(
    ("where", "name", "how"),
    [
        pytest.param(module, "save_file", full, id="writing"),
        pytest.param(module, "save_file", broken, id="writing, as safetensors says it"),
        pytest.param(module.os, "fsync", full, id="fsync"),
        pytest.param(module.Path, "replace", full, id="renaming"),
    ],
)


@FULL_DISK
def test_a_shard_that_could_not_be_written_is_not_there(store, monkeypatch, where, name, how):
    monkeypatch.setattr(where, name, how)
    message = error_of(lambda: store.write_shard("x", [TEXT]), TrainError)
    assert "No space left on device" in message
    assert message.startswith(f"{store.shard('x')} cannot be written: ")
    assert message.endswith("; make room there or name another folder")
    assert files(store.folder) == []


@FULL_DISK
def test_an_old_shard_is_kept_when_the_new_one_cannot_be_written(store, monkeypatch, where, name, how):
    store.write_shard("x", [TEXT])
    before = store.shard("x").read_bytes()
    monkeypatch.setattr(where, name, how)
    error_of(lambda: store.write_shard("x", [FACE, WINDOWS]), TrainError)
    assert store.shard("x").read_bytes() == before
    assert files(store.folder) == ["shards/x.safetensors"]


def test_an_old_manifest_is_kept_when_the_new_one_cannot_be_written(store, monkeypatch):
    store.write_manifest("sst", [entry(0)])
    monkeypatch.setattr(module.os, "fsync", full)
    error_of(lambda: store.write_manifest("sst", [entry(1), entry(2)]), TrainError)
    assert store.read_manifest("sst") == [entry(0)]
    assert files(store.folder) == ["sst.jsonl"]


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt, DataError])
def test_what_a_body_fails_with_goes_on_and_nothing_is_left_behind(tmp_path, raised):
    path = tmp_path / "here" / "file"

    def write():
        with replacing(path) as part:
            part.write_bytes(b"half")
            assert part.is_file()
            assert not path.exists()
            raise raised

    with pytest.raises(raised):
        write()
    assert files(tmp_path) == []


def test_a_body_that_writes_nothing_is_an_error(tmp_path):
    def write():
        with replacing(tmp_path / "file"):
            pass

    assert "file cannot be written: No such file" in error_of(write, TrainError)


def test_what_was_written_replaces_what_was_there_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert files(tmp_path) == ["file"]


def test_it_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, order, fsync = tmp_path / "file", [], os.fsync
    monkeypatch.setattr(
        module.os, "fsync", lambda number: (order.append((os.fstat(number).st_size, path.exists())), fsync(number))
    )
    with replacing(path) as part:
        part.write_bytes(b"12345")
    assert order == [(5, False)]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("no folder")
    store = Store(tmp_path / "file")
    message = error_of(lambda: store.write_manifest("sst", []), TrainError)
    assert message.startswith(f"{tmp_path / 'file' / 'sst.jsonl'} cannot be written: ")
    assert (tmp_path / "file").read_text() == "no folder"
