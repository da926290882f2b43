import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.one_line import error_of
from train import items
from train.errors import DataError
from train.items import Clip, Picture, Sound, Text, digest, read_bytes, source_bytes

PARTS = st.lists(st.binary(max_size=12), max_size=5)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"0123456789")
    return tmp_path / "file.bin"


# --- digests


def test_a_digest_is_of_fixed_length_and_of_the_bytes_alone():
    assert digest([b"one", b"two"]) == digest((b"one", b"two"))
    assert digest([]) == hashlib.sha256().hexdigest()[:20]
    assert digest([b"abc"]) == hashlib.sha256(b"\x03\0\0\0\0\0\0\0abc").hexdigest()[:20]  # kept: it names files


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([b"ab", b"c"], [b"a", b"bc"]),
        ([b"abc"], [b"ab", b"c"]),
        ([b"abc", b""], [b"abc"]),
        ([b"", b"abc"], [b"abc", b""]),
        ([], [b""]),
        ([b"a", b"b"], [b"b", b"a"]),
        ([b"\x01\0\0\0\0\0\0\0a"], [b"", b"a"]),
    ],
)
def test_where_one_string_ends_and_the_next_begins_is_part_of_it(one, other):
    assert digest(one) != digest(other)


@given(PARTS, PARTS)
def test_only_the_same_strings_give_the_same_digest(one, other):
    assert (digest(one) == digest(other)) == (one == other)


@given(PARTS.filter(any), st.data())
def test_a_cut_at_another_place_gives_another_digest(parts, data):
    whole = b"".join(parts)
    cut = data.draw(st.integers(0, len(whole)))
    other = [whole[:cut], whole[cut:]]
    assert (digest(parts) == digest(other)) == (parts == other)


# --- what features are a function of


def test_all_of_a_text_counts():
    texts = [
        Text(("a", "b")),
        Text(("ab",)),
        Text(("a b",)),
        Text(("b", "a")),
        Text(("a', 'b",)),
        Text(("a", "b"), (1, 2), 3),
        Text(("a", "b"), (1, 3), 3),
        Text(("a", "b"), (1, 2), 4),
    ]
    assert len({source_bytes(text) for text in texts}) == len(texts)
    assert source_bytes(Text(("é", "☺"))) == source_bytes(Text(("é", "☺")))


def test_a_sound_is_its_file_whatever_that_is_called(path):
    other = path.rename(path.with_name("other"))
    assert source_bytes(Sound(other)) == b"0123456789"


def test_a_clip_is_its_file_and_the_part_of_it(path):
    clips = [Clip(path), Clip(path, 0, 9), Clip(path, 0, 10), Clip(path, 1), Clip(path, 1, 9)]
    assert len({source_bytes(clip) for clip in clips}) == len(clips)
    before = source_bytes(Clip(path))
    path.write_bytes(b"012345678x")
    os.utime(path, ns=(0, 0))  # later or not, but not then
    assert source_bytes(Clip(path)) != before


def test_a_film_is_read_once_for_all_its_clips(path, monkeypatch):
    expected = [source_bytes(Clip(path, 0, end)) for end in (1, 2, 3)]
    monkeypatch.setattr(items.hashlib, "file_digest", None)
    assert [source_bytes(Clip(path, 0, end)) for end in (1, 2, 3)] == expected


def test_a_picture_is_its_part_of_the_archive_wherever_that_lies(path):
    assert source_bytes(Picture(path, 2, 3)) == b"234"
    before = source_bytes(Picture(path, 9, 1))
    path.write_bytes(b"9........8")
    assert source_bytes(Picture(path, 0, 1)) == before
    assert source_bytes(Picture(path, 9, 1)) == b"8"


@pytest.mark.parametrize("made", [Sound, Clip, lambda path: Picture(path, 0, 1)], ids=["sound", "clip", "picture"])
def test_a_file_that_is_not_there(tmp_path, made):
    message = error_of(lambda: source_bytes(made(tmp_path / "gone.bin")), DataError)
    assert message == f"{tmp_path / 'gone.bin'} cannot be read: No such file or directory"


def test_a_folder_is_no_file(tmp_path):
    assert error_of(lambda: read_bytes(tmp_path), DataError) == f"{tmp_path} cannot be read: Is a directory"


def test_reading_beyond_the_end_gives_what_there_is(path):
    assert read_bytes(path, 8, 5) == b"89"
    assert read_bytes(path, 20, 5) == b""
    assert read_bytes(path) == b"0123456789"
