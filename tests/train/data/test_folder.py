"""Segments are written once, whole or not at all, and mapped from the disk afterwards."""

import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from tests.train.one_line import error_of
from train.data import folder as module
from train.data.aligned import MODALITIES, Segments
from train.data.folder import Source, opened
from train.errors import DataError

SPLITS = ("train", "test")


def segments(seed: int, count: int = 3) -> Segments:
    random = np.random.default_rng(seed)
    sizes = {"text": (4, 5), "audio": (6, 2), "vision": (4, 3)}
    return Segments(
        tuple(f"é {n}" for n in range(count)),
        {m: random.normal(size=(count, *size)).astype(np.float32) for m, size in sizes.items()},
        {m: random.integers(1, size[0], count) for m, size in sizes.items()},
        np.array([1.0, -2.5, np.nan], np.float32),
        {"text": 0, "audio": 7, "vision": 1},
    )


@dataclass
class File:
    """A file that says from which seed its splits are, and how often it was read."""

    path: Path
    reads: int = 0
    fails_after: int = len(SPLITS)
    given: list[weakref.ref[Segments]] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)

    def write(self, seed: int) -> None:
        self.path.write_text(str(seed))

    def read(self) -> Iterator[tuple[str, Segments]]:
        self.reads += 1
        seed = int(self.path.read_text())
        for number, split in enumerate(SPLITS):
            if number == self.fails_after:
                raise KeyboardInterrupt
            self.alive.append(sum(each() is not None for each in self.given))
            made = segments(seed + number)
            self.given.append(weakref.ref(made))
            yield split, made
            del made

    def opened(self, out: Path) -> dict[str, Segments]:
        return opened(Source("a", [self.path], self.read), out)


@pytest.fixture
def file(tmp_path: Path) -> File:
    found = File(tmp_path / "corpus")
    found.write(1)
    return found


def assert_same(found: Segments, expected: Segments) -> None:
    assert found.ids == expected.ids
    assert found.mended == expected.mended
    assert np.array_equal(found.labels, expected.labels, equal_nan=True)
    for m in MODALITIES:
        assert found.inputs[m].dtype == np.float32
        assert found.lengths[m].dtype == np.int64
        assert np.array_equal(found.inputs[m], expected.inputs[m])
        assert np.array_equal(found.lengths[m], expected.lengths[m])


def test_what_is_opened_is_what_was_read_and_its_inputs_stay_on_the_disk(file: File, tmp_path: Path) -> None:
    found = file.opened(tmp_path / "new" / "data")
    assert tuple(found) == SPLITS
    for number, split in enumerate(SPLITS):
        assert_same(found[split], segments(1 + number))
        assert all(isinstance(x, np.memmap) for x in found[split].inputs.values())
        with pytest.raises(ValueError, match="read-only"):
            found[split].inputs["text"][0] = 0


def test_files_are_read_again_only_when_one_has_changed(file: File, tmp_path: Path) -> None:
    out = tmp_path / "data"
    file.opened(out)
    assert_same(file.opened(out)["train"], segments(1))
    assert file.reads == 1
    file.write(2)  # as long as before, but later
    before = file.path.stat()
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert_same(file.opened(out)["train"], segments(2))
    assert file.reads == 2
    other = tmp_path / "other"
    other.touch()
    opened(Source("a", [file.path, other], file.read), out)
    assert file.reads == 3
    opened(Source("b", [file.path, other], file.read), out)  # in another format
    assert file.reads == 4


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "about.json").write_text('{"stamp'),
        lambda out: (out / "about.json").write_text("[]"),
        lambda out: (out / "test" / "about.json").unlink(),
        lambda out: (out / "test" / "text.npy").unlink(),
        lambda out: _cut(out / "test" / "audio.npy"),
        lambda out: (out / "test" / "labels.npy").write_bytes(b""),
    ],
)
def test_a_damaged_folder_is_written_anew(file: File, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    out = tmp_path / "data"
    file.opened(out)
    damage(out)
    assert_same(file.opened(out)["test"], segments(2))
    assert file.reads == 2


def test_flags_are_kept_with_the_rest(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flags = {m: np.ones((3, 4, 2), np.float32) * number for number, m in enumerate(MODALITIES)}
    made = replace(segments(1), flags=flags)
    found = opened(Source("a", [tmp_path / "file"], lambda: [("train", made)]), tmp_path / "data")["train"].flags
    assert found is not None
    assert all(np.array_equal(found[m], flags[m]) for m in MODALITIES)


@pytest.mark.parametrize("fails_after", [0, 1])
def test_a_conversion_that_is_killed_leaves_nothing_that_looks_whole(file: File, tmp_path: Path, fails_after: int) -> None:
    out = tmp_path / "data"
    file.fails_after = fails_after
    with pytest.raises(KeyboardInterrupt):
        file.opened(out)
    assert list(tmp_path.iterdir()) == [file.path]
    file.fails_after = len(SPLITS)
    assert_same(file.opened(out)["test"], segments(2))


def test_a_kill_that_leaves_parts_behind_does_no_harm(file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SIGKILL does: nothing is cleared away, before or after."""
    out = tmp_path / "data"
    file.fails_after = 1
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        file.opened(out)
    assert not out.exists()
    monkeypatch.undo()
    file.fails_after = len(SPLITS)
    assert_same(file.opened(out)["train"], segments(1))


def test_a_kill_while_old_segments_go_leaves_nothing_that_looks_whole(
    file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the first file comes back, as it was: what is left of its folder is not taken for it."""
    out = tmp_path / "data"
    file.opened(out)
    stamp = file.path.stat()
    rmtree = shutil.rmtree

    def killed(path: Path, **_: bool) -> None:
        if path == out:
            rmtree(out / "test")
            raise KeyboardInterrupt
        rmtree(path, ignore_errors=True)

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    file.write(22)
    with pytest.raises(KeyboardInterrupt):
        file.opened(out)
    monkeypatch.undo()
    file.write(1)
    os.utime(file.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert_same(file.opened(out)["test"], segments(2))


def test_a_split_is_given_back_before_the_next_is_read(file: File, tmp_path: Path) -> None:
    file.opened(tmp_path / "data")
    assert file.alive == [0, 0]
    assert [each() for each in file.given] == [None, None]


def test_what_cannot_be_read_or_written_is_one_line(file: File, tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    text = error_of(lambda: file.opened(tmp_path / "in the way" / "data"), DataError)
    assert (
        text
        == f"{tmp_path / 'in the way' / 'data'}: cannot be written (Not a directory); make room there or name another folder"
    )
    file.path.unlink()
    text = error_of(lambda: file.opened(tmp_path / "data"), DataError)
    assert text.startswith(f"{file.path}: cannot be read (No such file or directory); python -m train.download says where")
