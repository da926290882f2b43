"""Features are what a live session feeds the engine; that is all there is to them."""

import asyncio
import wave
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from extractors.errors import ExtractorError, Unavailable
from extractors.face import CONTRACT as FACE
from extractors.text import TextEmbedder
from stream.batcher import Batcher
from stream.clock import UnpacedClock
from stream.config import AsrConfig, Config, ModelConfig, WindowsConfig
from stream.inputs import lane_columns
from stream.parts import UNTRAINED, Input, load
from stream.scorer import Job, Scorer
from stream.session import Session
from stream.sources.media import MediaSource
from stream.track import Request, Step
from tests.stream.wiring import ListSink
from tests.train.one_line import error_of
from train.data import fer2013
from train.features import Extractors, NoFeatures, contract
from train.items import Clip, Content, Item, Picture, Sound, Text

ANY = ModelConfig(checkpoint=UNTRAINED)  # features do not hang on it
SPHINX = Config(asr=AsrConfig(engine="sphinx"), model=ANY)
MUTE = Config(asr=AsrConfig(engine="none"), model=ANY)


@pytest.fixture
def extractors(with_assets: None) -> Iterator[Extractors]:
    found = Extractors(SPHINX)
    yield found
    found.close()


def no_features(extractors: Extractors, content: Content) -> str:
    return error_of(lambda: extractors.features(content), NoFeatures)


# --- as live


def live(path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What a session over the file gives the engine to settle."""
    settled: list[Step] = []
    request = Scorer.request

    def recording(self: Scorer, job: Job) -> Request:
        found = request(self, job)
        if job.final:
            settled.extend(found.steps)
        return found

    monkeypatch.setattr(Scorer, "request", recording)
    source = MediaSource(str(path))
    (parts,) = load(config, [Input("s", (source,))], torch.device("cpu"))

    async def scenario() -> list[str]:
        batcher = Batcher()
        try:
            session = Session([source], parts, batcher, UnpacedClock(), [ListSink()], hop_ns=config.windows.hop_ns)
            return await asyncio.wait_for(session.run(), 300)
        finally:
            await batcher.close()

    try:
        assert asyncio.run(scenario()) == []
    finally:
        parts.close()
        source.close()
    return settled


@pytest.mark.parametrize(
    ("name", "windows", "restarts"),
    [
        pytest.param("clips/talk1.mp4", 41, 1, id="a talking face"),
        pytest.param("clips/leaves.mov", 26, 1, id="a face that leaves"),
        pytest.param("speech/jfk.wav", 44, 3, id="several utterances, and no picture"),
    ],
)
def test_a_clip_gives_what_a_live_session_feeds_the_engine_bit_for_bit(
    shared: Path, extractors: Extractors, monkeypatch: pytest.MonkeyPatch, name: str, windows: int, restarts: int
) -> None:
    found, steps = extractors.features(Clip(shared / name)), live(shared / name, SPHINX, monkeypatch)
    assert [step.seq for step in steps] == list(range(windows))
    assert np.array_equal(found["inputs"], np.stack([step.inputs for step in steps]))
    assert found["restart"].tolist() == [step.restart for step in steps]
    assert (found["inputs"].dtype, found["restart"].dtype) == (np.float32, np.bool_)
    # And there is something in it.
    assert found["restart"].sum() == restarts
    columns = lane_columns()
    heard, seen = found["inputs"][:, columns["audio"]], found["inputs"][:, columns["vision"]]
    assert heard[:, :-2].any(1).mean() > 0.6
    assert seen[:, :-2].any() == (not name.endswith(".wav"))
    said = found["inputs"][:, columns["text"]]
    assert (said[:, -1].sum() > 5) == (name != "clips/leaves.mov")  # who leaves, says nothing
    assert len(np.unique(said[:, :-2], axis=0)) > 5 or name == "clips/leaves.mov"


def test_a_sound_gives_what_a_live_session_without_recognition_feeds_the_engine(
    shared: Path, extractors: Extractors, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared / "data" / "ravdess" / "03-01-05-02-01-01-24.flac"
    found, steps = extractors.features(Sound(path)), live(path, MUTE, monkeypatch)
    assert np.array_equal(found["inputs"], np.stack([step.inputs for step in steps]))
    assert found["restart"].tolist() == [step.restart for step in steps]
    assert not found["inputs"][:, lane_columns()["text"]].any()
    assert found["inputs"][:, lane_columns()["audio"]].any(1).all()


def test_a_part_of_a_clip_gives_what_a_file_of_that_part_gives(shared: Path, tmp_path: Path) -> None:
    whole, part = shared / "speech" / "jfk.wav", tmp_path / "part.wav"
    # Where blocks of sound as they are read meet, the file can be cut.
    blocks = list(MediaSource(str(whole)).packets(UnpacedClock()))
    first, last = blocks[20], blocks[100]
    with wave.open(str(whole)) as file, wave.open(str(part), "wb") as cut:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        cut.setparams(file.getparams())
        cut.writeframes(samples[round(first.t_ns * 16e-6) : round(last.t_ns * 16e-6)].tobytes())
    extractors = Extractors(MUTE)
    found, expected = extractors.features(Clip(whole, first.t_ns, last.t_ns)), extractors.features(Clip(part))
    assert np.array_equal(found["inputs"], expected["inputs"])
    assert np.array_equal(found["restart"], expected["restart"])
    assert len(found["inputs"]) == -(-(last.t_ns - first.t_ns) // 250_000_000)
    to_the_end = extractors.features(Clip(whole, first.t_ns))["inputs"]
    assert len(to_the_end) == -(-(11_000_000_000 - first.t_ns) // 250_000_000)
    assert np.array_equal(to_the_end[: len(expected["inputs"]) - 1], expected["inputs"][:-1])


# --- pictures


@pytest.fixture(scope="module")
def faces(shared: Path) -> list[Item]:
    return fer2013.items(shared / "data" / "fer2013")[:12]


def rows(extractors: Extractors, items: list[Item]) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for item in items:
        try:
            found[item.id] = extractors.features(item.content)["face"].tobytes()
        except NoFeatures as error:
            found[item.id] = str(error)
    return found


def test_a_pictures_row_does_not_depend_on_the_pictures_before_it(extractors: Extractors, faces: list[Item]) -> None:
    expected = rows(extractors, faces)
    there = [row for row in expected.values() if isinstance(row, bytes)]
    assert len(there) == len(set(there)) >= 9
    assert {row for row in expected.values() if isinstance(row, str)} == {"no face found"}
    assert rows(extractors, faces[::-1]) == expected
    assert rows(extractors, faces[1::2] + faces[::2]) == expected
    fresh = Extractors(SPHINX)
    assert rows(fresh, faces[5:6]) == {faces[5].id: expected[faces[5].id]}
    fresh.close()


def test_a_face_is_rows_of_blendshapes_and_pose_each_of_a_look_of_its_own(extractors: Extractors, faces: list[Item]) -> None:
    rows = extractors.features(faces[0].content)["face"]
    assert (rows.shape, rows.dtype) == ((6, 58), np.float32)
    assert ((rows[:, :52] >= 0) & (rows[:, :52] <= 1)).all()
    assert len(np.unique(rows, axis=0)) == 6
    assert np.abs(rows[:, :52] - rows[0, :52]).mean() < 0.1
    roll = rows[:, FACE.columns.index("head_roll_rad")]
    assert abs(roll[4] - roll[5]) > np.radians(3)  # one look turned one way, one the other


def picture(path: Path, content: bytes) -> Picture:
    path.write_bytes(b"before" + content + b"after")
    return Picture(path, 6, len(content))


def test_a_picture_without_a_face(extractors: Extractors, faces: list[Item], tmp_path: Path) -> None:
    expected = rows(extractors, faces[:1])
    noise = np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8)
    for image in (noise, np.zeros_like(noise)):
        encoded = cv2.imencode(".png", image)[1].tobytes()
        assert no_features(extractors, picture(tmp_path / "archive", encoded)) == "no face found"
    assert rows(extractors, faces[:1]) == expected


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0" + bytes(100)])
def test_what_is_no_picture(tmp_path: Path, content: bytes) -> None:
    assert no_features(Extractors(SPHINX), picture(tmp_path / "archive", content)) == "not a picture that can be read"


# --- words


def test_a_texts_vectors_are_those_of_the_words_so_far() -> None:
    words, embedder = ("it", "is", "not", "that", "bad"), TextEmbedder()
    found = Extractors(MUTE).features(Text(words))
    assert found.keys() == {"vectors"}
    expected = np.stack([embedder.embed(words[:count]) for count in range(1, len(words) + 1)])
    assert np.array_equal(found["vectors"], expected)
    assert found["vectors"].dtype == np.float32
    timed = Extractors(MUTE).features(Text(words, (1, 2, 2, 3, 2**40), 2**41))
    assert np.array_equal(timed["vectors"], expected)
    assert (timed["ends_ns"].tolist(), timed["length_ns"].tolist()) == ([1, 2, 2, 3, 2**40], [2**41])


# --- what has none


def test_what_is_no_sound(shared: Path, tmp_path: Path) -> None:
    extractors, path = Extractors(SPHINX), tmp_path / "03-01-05-02-01-01-24.flac"
    whole = (shared / "data" / "ravdess" / path.name).read_bytes()
    assert f"{path}: no such file" in no_features(extractors, Sound(path))
    for content, reason in (
        (whole[: len(whole) // 2], "03-01-05-02-01-01-24.flac: cut short at 1.9 s of 4.4 s; "),
        (whole[:100], f"{path}: not a media file"),
        (b"", "nothing in it"),
        (b"no sound\n" * 20, "nothing in it"),
    ):
        path.write_bytes(content)
        assert no_features(extractors, Sound(path)).startswith(reason)


def test_a_part_after_the_end_has_nothing_in_it(shared: Path) -> None:
    content = Clip(shared / "speech" / "jfk.wav", 60_000_000_000, 61_000_000_000)
    assert no_features(Extractors(MUTE), content) == "nothing in it"


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("clips/leaves.mov", "stream.parts.FaceExtractor"),
        ("speech/jfk.wav", "stream.parts.AudioLane"),
        ("speech/jfk.wav", "stream.parts.asr.create"),
        ("speech/jfk.wav", "train.features.TextEmbedder"),
    ],
)
def test_without_an_extractor_there_is_an_error_and_nothing_is_taken_for_features_or_for_their_want(
    shared: Path, with_assets: None, monkeypatch: pytest.MonkeyPatch, name: str, lacking: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Unavailable("it cannot be had; install it")

    monkeypatch.setattr(lacking, fail)
    extractors = Extractors(SPHINX)
    assert "it cannot be had; install it" in error_of(lambda: extractors.features(Clip(shared / name)), ExtractorError)
    if lacking == "stream.parts.AudioLane":
        error_of(lambda: extractors.features(Sound(shared / name)), ExtractorError)


# --- what they are stored under

CONTENTS: list[Content] = [Text(("a",)), Picture(Path("a"), 0, 1), Sound(Path("a")), Clip(Path("a"))]


def test_what_features_are_made_by_is_one_line_and_another_for_each_kind() -> None:
    found = [contract(content, SPHINX) for content in CONTENTS]
    assert len(set(found)) == len(CONTENTS)
    assert not any("\n" in each for each in found)


def test_what_an_item_is_called_is_no_part_of_what_its_features_are_made_by() -> None:
    assert contract(Clip(Path("a")), SPHINX) == contract(Clip(Path("b"), 1, 2), SPHINX)


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        pytest.param(SPHINX, [False, False, False, False], id="nothing"),
        pytest.param(MUTE, [False, False, False, True], id="who recognises"),
        pytest.param(
            SPHINX.model_copy(update={"windows": WindowsConfig(hop_ms=500)}), [False, False, True, True], id="windows"
        ),
    ],
)
def test_features_are_made_anew_when_what_they_hang_on_changes(other: Config, changed: list[bool]) -> None:
    assert [contract(content, SPHINX) != contract(content, other) for content in CONTENTS] == changed
