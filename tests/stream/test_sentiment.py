"""Do the scores of the checkpoint that comes with the program mean what they say? Through the command, on real input."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream.live import main
from train.data import fer2013
from train.items import Item, Picture, read_bytes

pytestmark = pytest.mark.usefixtures("with_assets")

PRAISE = ["this is a wonderful film and i loved every minute of it", "what a beautiful day i am so happy with all of this"]
COMPLAINT = [
    "this is a terrible film and i hated every minute of it",
    "what an awful day i am so disappointed with all of this",
]


def finals(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, float]]:
    assert main([*arguments, "--speed", "max", "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line.get("kind") == "final"]


def say(sentence: str, folder: Path) -> tuple[Path, Path]:
    """The sentence as sound, and its words with even times."""
    sound, words = folder / "say.wav", folder / "say.csv"
    subprocess.run(["espeak-ng", "-s", "150", "-w", str(sound), sentence], check=True)
    with av.open(sound) as container:
        seconds = container.duration / 1e6
    spoken = sentence.split()
    ends = np.linspace(0, seconds, len(spoken) + 1)
    with words.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["word", "start_s", "end_s"])
        table.writerows(
            (word, f"{start:.3f}", f"{end:.3f}") for word, start, end in zip(spoken, ends[:-1], ends[1:], strict=True)
        )
    return sound, words


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="no voice to speak with: espeak-ng is not installed")
@pytest.mark.parametrize(("sentence", "sign"), [(each, 1) for each in PRAISE] + [(each, -1) for each in COMPLAINT])
def test_plain_praise_and_plain_complaint(sentence: str, sign: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, words = say(sentence, tmp_path)
    scores = finals(capsys, "--source", str(sound), "--words", str(words))
    assert sign * scores[-1]["sentiment"] > 0.5


def still(item: Item, path: Path) -> Path:
    """Two seconds of a picture, enlarged and framed as a camera would show a face."""
    assert isinstance(item.content, Picture)
    encoded = np.frombuffer(read_bytes(item.content.archive, item.content.offset, item.content.size), np.uint8)
    face = cv2.resize(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), (256, 256), interpolation=cv2.INTER_CUBIC)
    picture = cv2.copyMakeBorder(face, 64, 64, 128, 128, cv2.BORDER_REPLICATE).astype(np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_smiling_face_without_words_scores_above_a_frowning_one(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test faces on which the votes agree: of all pairs, at least nine in ten, and the means far apart."""
    items = [item for item in fer2013.items(shared / "data" / "fer2013") if item.split == "test" and item.sentiment is not None]
    smiling = [item for item in items if item.label == "happiness" and item.sentiment == 2.0][:6]
    frowning = [item for item in items if item.label == "anger" and (item.sentiment or 0) < -1.5][:6]
    scores = {}
    for name, chosen in (("smiling", smiling), ("frowning", frowning)):
        found = [finals(capsys, "--source", str(still(item, tmp_path / f"{item.id}.mp4"))) for item in chosen]
        seen = [each[-1] for each in found if each[-1]["modalities"]["vision"]["status"] == "ok"]  # type: ignore[index]
        assert len(seen) >= 4
        scores[name] = np.array([each["sentiment"] for each in seen])
    assert (scores["smiling"][:, None] > scores["frowning"]).mean() >= 0.9
    assert scores["smiling"].mean() > scores["frowning"].mean() + 1
