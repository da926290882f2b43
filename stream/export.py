"""What others can open: scores as a table, sound as WAV, pictures with the score drawn in as MP4, a session as a plot."""

import csv
import importlib.util
import wave
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from stream.errors import UsageError
from stream.mcap import RecordingReader
from stream.messages import LANES, Score, VideoFrame
from stream.pictures import Decoder
from stream.records import AUDIO, OUTPUTS, PICTURE, VIDEO

T = TypeVar("T")

_LANE_COLORS = {"text": "tab:blue", "audio": "tab:orange", "vision": "tab:green"}
_FPS = 25
_WIDEST = 1280  # pixels


def scores(reader: RecordingReader) -> Iterator[Score]:
    """The scores of a recording, in their order."""
    for record in reader.records(frozenset({OUTPUTS[Score].topic})):
        yield record.value


def rows(reader: RecordingReader) -> list[dict[str, Any]]:
    """A row for each final score: seconds, score units, and what was known of the lanes."""
    found = []
    for score in scores(reader):
        if score.kind != "final":
            continue
        row: dict[str, Any] = {
            "seq": score.seq,
            "t_start_s": score.t_start_ns / 1e9,
            "t_end_s": score.t_end_ns / 1e9,
            "sentiment": score.sentiment,
            "uncertainty": score.uncertainty,
            "sentiment_smooth": score.smooth,
            "revised_from": score.revised_from,
            "voiced": score.voiced,
        }
        for lane in LANES:
            row[f"{lane}_status"], row[f"{lane}_weight"] = score.lanes[lane].status, score.lanes[lane].weight
        row["words"] = " ".join(word.text for word in score.words) if reader.about.words else None
        found.append(row)
    return found


def to_csv(reader: RecordingReader, out: Path) -> None:
    """The final scores as a CSV table with a header; empty where nothing is known."""
    table = rows(reader)
    with out.open("x", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0] if table else ["seq"])
        writer.writeheader()
        writer.writerows(table)


def to_parquet(reader: RecordingReader, out: Path) -> None:
    """The same as Parquet; raises UsageError if pyarrow is not installed."""
    _need("--parquet", "pyarrow")
    import pyarrow
    import pyarrow.parquet

    with out.open("xb") as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows(reader)), file)


def to_wav(reader: RecordingReader, out: Path) -> None:
    """The sound, 16 kHz mono, from the recording's begin on, with silence in its gaps; raises UsageError if there is none."""
    blocks = _sound(reader)
    first = _first(blocks, f"{reader.path}: holds no sound; record some with --record-level media")
    with out.open("xb") as file, wave.open(file, "wb") as sound:
        sound.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        written = 0
        for start, samples in chain([first], blocks):
            for at in range(written, start, SAMPLE_RATE):
                sound.writeframesraw(bytes(2 * min(SAMPLE_RATE, start - at)))
            sound.writeframesraw(samples.astype("<i2").tobytes())
            written = start + len(samples)


def to_mp4(reader: RecordingReader, out: Path) -> None:
    """The pictures with the final score of their moment drawn in, and the sound, from the recording's begin on.

    Raises:
        UsageError: There are no pictures.
    """
    import av

    finals = {score.seq: score for score in scores(reader) if score.kind == "final"}
    frames = _pictures(reader)
    first = _first(frames, f"{reader.path}: holds no pictures; record some with --record-level media")
    hop_ns = reader.about.config.windows.hop_ns
    if out.exists():
        raise FileExistsError(out)
    with av.open(str(out), "w") as container:
        audio: Any = container.add_stream("aac", rate=SAMPLE_RATE) if "audio" in reader.about.packets else None
        if audio:
            audio.layout = "mono"
        video: Any = container.add_stream("libx264", rate=_FPS)
        video.height, video.width, video.pix_fmt = *_drawn(first[1].image, None).shape[:2], "yuv420p"
        for number, frame in chain([first], frames):
            image = _drawn(frame.image, finals.get(frame.t_ns // hop_ns))
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, _FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if audio:
            for start, samples in _sound(reader):
                sound = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
                container.mux(audio.encode(sound))
            container.mux(audio.encode())


def to_plot(reader: RecordingReader, out: Path) -> None:
    """The session over time, as PNG or SVG by the ending: score with uncertainty, words, lanes, and what the masks let through.

    Raises:
        UsageError: matplotlib is not installed, or there are no scores.
    """
    _need("--plot", "matplotlib")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    every = list(scores(reader))
    finals = [score for score in every if score.kind == "final"]
    if not finals:
        raise UsageError(f"{reader.path}: holds no final score; nothing to plot")
    if out.exists():
        raise FileExistsError(out)
    t_s = np.array([score.t_end_ns / 1e9 for score in finals])
    sentiment, spread, smooth = (
        np.array([getattr(score, name) for score in finals]) for name in ("sentiment", "uncertainty", "smooth")
    )
    length_s = float(t_s[-1] - t_s[0]) + 1
    figure, (above, words, lanes, masks) = pyplot.subplots(
        4, sharex=True, figsize=(min(40.0, 8 + length_s / 8), 8), height_ratios=(4, 1.2, 1, 1.6), layout="constrained"
    )
    above.fill_between(t_s, sentiment - spread, sentiment + spread, alpha=0.2, linewidth=0, label="uncertainty")
    provisional = [score for score in every if score.kind == "provisional"]
    above.scatter(
        [score.t_end_ns / 1e9 for score in provisional], [score.sentiment for score in provisional], s=3, c="0.6",
        label="provisional",
    )  # fmt: skip
    above.plot(t_s, sentiment, label="final")
    above.plot(t_s, smooth, linestyle="--", linewidth=1, label="smoothed")
    above.axhline(0, color="0.7", linewidth=0.5)
    above.set(ylim=(-3, 3), ylabel="sentiment")
    above.set_title(reader.about.name, parse_math=False)
    above.legend(loc="upper right", ncols=4, fontsize="small")
    spoken = [word for score in finals for word in score.words]
    for number, word in enumerate(spoken):
        text = word.text if reader.about.words else "·"
        words.text(word.start_ns / 1e9, number % 4, text, fontsize="x-small", clip_on=True, parse_math=False)
    words.set(ylim=(-1, 4), yticks=[], ylabel="words")
    for row, lane in enumerate(LANES):
        status = np.array([score.lanes[lane].status in ("ok", "partial") for score in finals])
        absent = np.array([score.lanes[lane].status == "missing" for score in finals])
        lanes.fill_between(t_s, row, row + 0.8, where=status, step="pre", color=_LANE_COLORS[lane], linewidth=0)
        lanes.fill_between(t_s, row, row + 0.8, where=absent, step="pre", color="0.85", linewidth=0)
        masks.plot(t_s, [score.lanes[lane].weight for score in finals], color=_LANE_COLORS[lane], label=lane)
    lanes.set(yticks=[0.4, 1.4, 2.4], yticklabels=LANES, ylabel="lanes")
    masks.set(ylim=(0, 1), ylabel="let through", xlabel="session time, s")
    masks.legend(loc="upper right", ncols=3, fontsize="small")
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def _sound(reader: RecordingReader) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
    """Sound, (N,), and where it starts, in samples since the recording's begin; none twice."""
    end = 0
    for record in reader.records(frozenset({AUDIO.topic})):
        start = round((record.value.t_ns - _begin_ns(reader)) / SAMPLE_NS)
        samples = record.value.samples[max(0, end - start) :]
        if len(samples):
            start = max(start, end)
            end = start + len(samples)
            yield start, samples


def _pictures(reader: RecordingReader) -> Iterator[tuple[int, VideoFrame]]:
    """Pictures by number, `_FPS` a second since the recording's begin; of several with one number the first."""
    decoder = Decoder()
    last = -1
    coded = (record.value for record in reader.records(frozenset({VIDEO.topic, PICTURE.topic})))
    for frame in chain(chain.from_iterable(map(decoder.push, coded)), decoder.finish()):
        number = round((frame.t_ns - _begin_ns(reader)) * _FPS / 1e9)
        if number > last:
            last = number
            yield number, frame


def _begin_ns(reader: RecordingReader) -> int:
    return reader.about.begin.seq * reader.about.config.windows.hop_ns


def _first(found: Iterator[T], otherwise: str) -> T:
    """The first of them; raises UsageError if there is none."""
    for one in found:
        return one
    raise UsageError(otherwise)


def _drawn(image: npt.NDArray[np.uint8], score: Score | None) -> npt.NDArray[np.uint8]:
    """A picture, (H, W, 3) with even sides and not too large, and a bar from the middle towards the score under it."""
    import cv2

    scale = min(1.0, _WIDEST / max(image.shape[:2]))
    height, width = (int(side * scale) // 2 * 2 for side in image.shape[:2])
    drawn = cv2.resize(image, (width, height)).astype(np.uint8, copy=False)
    if score is None:
        return drawn
    middle, high = width // 2, max(8, height // 40)
    end = middle + round(score.sentiment / 3 * (width // 2 - 4))
    color = (40, 170, 70) if score.sentiment > 0 else (210, 60, 50)
    cv2.rectangle(drawn, (min(middle, end), height - 2 * high), (max(middle, end), height - high), color, -1)
    cv2.line(drawn, (middle, height - 3 * high), (middle, height), (255, 255, 255), 1)
    text = f"{score.sentiment:+.2f} +-{score.uncertainty:.2f}"
    for thickness, ink in ((4, (0, 0, 0)), (1, (255, 255, 255))):
        cv2.putText(
            drawn, text, (8, height - 4 * high), cv2.FONT_HERSHEY_SIMPLEX, height / 700, ink, thickness, cv2.LINE_AA
        )  # fmt: skip
    return drawn


def _need(option: str, module: str) -> None:
    if not importlib.util.find_spec(module):
        raise UsageError(f"{option}: {module} is not installed; run: pip install 'mmlatch-live[export]'")
