import tarfile
from collections import Counter
from io import BytesIO

import pytest

from tests.train.one_line import error_of
from train import scale
from train.data import fer2013, read_corpus
from train.errors import DataError
from train.items import source_bytes

HEADER = f"Usage,Image name,{','.join(fer2013.EMOTIONS)}\n"


def row(usage="Training", **votes):
    return f"{usage},fer.png,{','.join(str(votes.get(emotion, 0)) for emotion in fer2013.EMOTIONS)}\n"


def archive(path, names):
    """Pictures whose bytes are their own names."""
    with tarfile.open(path / fer2013.ARCHIVE, "w") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            file.addfile(member, BytesIO(name.encode()))


def write(folder, *rows, names=None):
    (folder / fer2013.VOTES).write_text(HEADER + "".join(rows))
    archive(folder, names or [f"Data/Training/Happy/{number:08d}.jpg" for number in range(len(rows))])
    return folder


def place(folder, **votes):
    (item,) = fer2013.items(write(folder, row(**votes)))
    return item.label, item.sentiment


@pytest.mark.parametrize(
    ("votes", "label", "value"),
    [
        ({"happiness": 10}, "happiness", 2.0),
        ({"neutral": 10}, "neutral", 0.0),
        ({"sadness": 10}, "sadness", -1.6),
        ({"anger": 10}, "anger", -1.8),
        ({"disgust": 10}, "disgust", -1.8),
        ({"fear": 10}, "fear", -1.4),
        ({"contempt": 10}, "contempt", -1.2),
        ({"happiness": 6, "neutral": 4}, "happiness", 1.2),
        ({"happiness": 5, "sadness": 5}, "happiness", 0.2),  # the first of two with the most votes
        ({"neutral": 4, "sadness": 1, "anger": 3, "disgust": 2}, "neutral", -1.06),
    ],
)
def test_a_face_stands_at_the_mean_of_its_votes(tmp_path, votes, label, value):
    assert place(tmp_path, **votes) == (label, pytest.approx(value))


@pytest.mark.parametrize("other", ["surprise", "unknown", "NF"])
def test_votes_that_say_nothing_of_the_valence_are_left_out_and_a_majority_of_them_has_no_place(tmp_path, other):
    assert place(tmp_path, happiness=3, neutral=3, **{other: 4}) == (other, pytest.approx(1.0))
    assert place(tmp_path, happiness=4, **{other: 6}) == (other, None)
    assert place(tmp_path, **{other: 10}) == (other, None)


def test_votes_of_several_kinds_that_say_nothing_are_a_majority_together(tmp_path):
    assert place(tmp_path, happiness=4, surprise=3, unknown=2, NF=1) == ("happiness", None)


def test_a_face_without_votes_has_no_place(tmp_path):
    assert place(tmp_path)[1] is None


def test_a_picture_is_found_by_the_number_of_its_row_wherever_it_lies(tmp_path):
    names = ["Data/PrivateTest/Sad/00000002.jpg", "Data/README.txt", "Data/Training/Fear/00000000.jpg", "00000001.jpg"]
    write(
        tmp_path,
        row("Training", happiness=10),
        row("PublicTest", happiness=10),
        row("PrivateTest", happiness=10),
        names=names,
    )
    found = fer2013.items(tmp_path)
    assert [(item.id, item.split) for item in found] == [("00000000", "train"), ("00000001", "valid"), ("00000002", "test")]
    assert [source_bytes(item.content).decode() for item in found] == [names[2], names[3], names[0]]


def test_pictures_that_are_missing_are_counted_and_the_first_is_named(tmp_path):
    write(tmp_path, *[row(happiness=10)] * 5, names=["a/00000000.jpg", "a/00000002.jpg", "a/00000004.jpg"])
    message = error_of(lambda: fer2013.items(tmp_path), DataError)
    assert message == f"{tmp_path / fer2013.ARCHIVE} lacks 2 pictures, as 00000001.jpg; get the whole archive"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            HEADER.replace(",fear", ""),
            f" lacks the column fear; it must have Usage, {', '.join(fer2013.EMOTIONS)}",
            id="column",
        ),
        pytest.param(HEADER + row() + row("Test"), ", line 3: 'Test' is not known", id="split"),
        pytest.param(HEADER + row(fear="x"), ", line 2: invalid literal for int() with base 10: 'x'", id="vote"),
        pytest.param(HEADER + "Training,fer.png,10\n", ", line 2: invalid literal for int() with base 10: ''", id="no votes"),
    ],
)
def test_says_what_is_wrong_in_one_line(tmp_path, text, message):
    write(tmp_path, row(), row())
    (tmp_path / fer2013.VOTES).write_text(text)
    assert error_of(lambda: fer2013.items(tmp_path), DataError) == f"{tmp_path / fer2013.VOTES}{message}"


def test_a_file_that_is_not_there(tmp_path):
    write(tmp_path, row())
    (tmp_path / fer2013.VOTES).unlink()
    assert f"{fer2013.VOTES} cannot be read: No such file" in error_of(lambda: fer2013.items(tmp_path), DataError)
    (tmp_path / fer2013.ARCHIVE).unlink()
    assert f"{fer2013.ARCHIVE} cannot be read: No such file" in error_of(lambda: fer2013.items(tmp_path), DataError)


def damaged(folder, how):
    whole = (folder / fer2013.ARCHIVE).read_bytes()
    if how == "compressed":
        with tarfile.open(folder / fer2013.ARCHIVE, "w:gz"):
            pass
    else:
        (folder / fer2013.ARCHIVE).write_bytes({"empty": b"", "text": b"no archive " * 100, "cut": whole[:1600]}[how])


@pytest.mark.parametrize("how", ["empty", "text", "cut", "compressed"])
def test_an_archive_that_is_damaged_or_compressed(tmp_path, how):
    write(tmp_path, row(), row())
    damaged(tmp_path, how)
    assert error_of(lambda: fer2013.items(tmp_path), DataError).startswith(f"{tmp_path / fer2013.ARCHIVE} ")


def test_the_whole_corpus(shared):
    found = read_corpus("fer2013", shared / "data" / "fer2013")
    assert len(found) == 35_887
    assert Counter(item.split for item in found) == {"train": 28_709, "valid": 3_589, "test": 3_589}
    assert [int(item.id) for item in found] == list(range(35_887))
    assert len({(item.content.offset, item.content.size) for item in found}) == 35_887
    assert sum(item.sentiment is None for item in found) == 4_807
    for item in found[::3000]:
        assert source_bytes(item.content)[:3] == b"\xff\xd8\xff"
    # Where all agree, the face stands where the one emotion does.
    happy = Counter(item.sentiment for item in found if item.label == "happiness")
    assert max(happy, key=happy.__getitem__) == scale.FERPLUS["happiness"]
    assert found[0].sentiment == pytest.approx((1 * -1.6 + 3 * -1.8 + 2 * -1.8) / 10)
