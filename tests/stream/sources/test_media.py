"""Media files: small ones made here with PyAV, and the real clips where they are."""

import itertools
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest

from stream.clock import UnpacedClock
from stream.errors import SourceError
from stream.messages import AudioBlock, Packet, VideoFrame
from stream.sources.media import MediaSource

SAMPLE_NS = 62_500


def make(
    path: Path,
    *,
    video_s: float = 0,
    audio_s: float = 0,
    rate: int = 48_000,
    audio_from_s: float = 0,
    fps: int = 10,
    title: str = "",
) -> Path:
    """A film whose pictures get brighter, with a 440 Hz tone."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        container.metadata["title"] = title
        video = container.add_stream("mpeg4", rate=fps) if video_s else None
        audio = (
            container.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=rate, layout="stereo")
            if audio_s
            else None
        )
        if video:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for number in range(round(video_s * fps)):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), min(20 + 8 * number, 250), np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio:
            tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(audio_s * rate)) / rate)
            pcm = np.repeat((tone * 32767).astype(np.int16), 2)[None]
            for start in range(0, pcm.shape[1], 2048):
                frame = av.AudioFrame.from_ndarray(pcm[:, start : start + 2048], format="s16", layout="stereo")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(audio_from_s * rate) + start // 2
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def read(path: Path) -> tuple[MediaSource, list[Packet]]:
    source = MediaSource(str(path))
    packets = list(source.packets(UnpacedClock()))
    source.close()
    return source, packets


def pictures(packets: Iterable[Packet]) -> list[VideoFrame]:
    return [p for p in packets if isinstance(p, VideoFrame)]


def sound(packets: Iterable[Packet]) -> list[AudioBlock]:
    return [p for p in packets if isinstance(p, AudioBlock)]


def test_pictures_and_sound_come_by_their_presentation_times(tmp_path: Path) -> None:
    source, packets = read(make(tmp_path / "a.mp4", video_s=2, audio_s=2))
    assert source.provides == {"video", "audio"}
    assert source.problems == []
    assert [p.t_ns for p in pictures(packets)] == [n * 100_000_000 for n in range(20)]
    assert pictures(packets)[0].image.shape == (48, 64, 3)
    brightness = [p.image.mean() for p in pictures(packets)]
    assert brightness == sorted(brightness)
    assert [p.t_ns for p in packets] == sorted(p.t_ns for p in packets)


def test_sound_is_16_khz_mono_and_its_blocks_meet(tmp_path: Path) -> None:
    _, packets = read(make(tmp_path / "a.wav", audio_s=1.5, rate=44_100))
    blocks = sound(packets)
    for one, following in itertools.pairwise(blocks):
        assert following.t_ns == one.t_ns + len(one.samples) * SAMPLE_NS
    heard = np.concatenate([block.samples for block in blocks])
    assert heard.dtype == np.int16
    assert abs(len(heard) - 24_000) <= 1
    spectrum = np.abs(np.fft.rfft(heard[:16_000].astype(float)))
    assert spectrum.argmax() == 440
    assert np.abs(heard[4000:8000]).max() == pytest.approx(0.3 * 32767, rel=0.05)


def test_one_kind_alone_is_fine(tmp_path: Path) -> None:
    source, packets = read(make(tmp_path / "v.mp4", video_s=1))
    assert (source.provides, len(pictures(packets)), sound(packets)) == ({"video"}, 10, [])
    source, packets = read(make(tmp_path / "a.wav", audio_s=1))
    assert (source.provides, pictures(packets)) == ({"audio"}, [])


def test_sound_that_starts_later_keeps_its_time(tmp_path: Path) -> None:
    _, packets = read(make(tmp_path / "a.mkv", video_s=3, audio_s=1, audio_from_s=1.5))
    assert sound(packets)[0].t_ns == pytest.approx(1_500_000_000, abs=2_000_000)


def test_a_hole_in_the_sound_stays_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "hole.mkv"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in (*range(0, 16_000, 1600), *range(32_000, 48_000, 1600)):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 1000, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), start
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    _, packets = read(path)
    ends = [(b.t_ns, b.t_ns + len(b.samples) * SAMPLE_NS) for b in sound(packets)]
    holes = [(end, start) for (_, end), (start, _) in itertools.pairwise(ends) if start != end]
    assert len(holes) == 1
    assert holes[0] == pytest.approx((1_000_000_000, 2_000_000_000), abs=2_000_000)


def test_a_phone_s_lying_picture_is_set_upright(tmp_path: Path, shared: Path) -> None:
    """The angle that the container stores beside the pictures; made by copying a real clip with such an entry."""
    path = tmp_path / "turned.mp4"
    with av.open(str(shared / "clips" / "address.mp4")) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        copy.set_display_rotation(90)  # counter-clockwise, as a player is to show it
        for number, packet in enumerate(source.demux(stream)):
            if packet.dts is None or number > 5:
                break
            packet.stream = copy
            target.mux(packet)
    upright = pictures(read(shared / "clips" / "address.mp4")[1])[0].image
    turned = pictures(read(path)[1])[0].image
    assert np.array_equal(turned, np.rot90(upright, 1))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_file_cut_short_gives_what_is_there_and_says_so(tmp_path: Path, ending: str) -> None:
    whole = make(tmp_path / f"whole.{ending}", video_s=10, audio_s=10)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source, packets = read(cut)
    assert 10 < len(pictures(packets)) < 90
    assert len(source.problems) == 1
    assert "cut short at" in source.problems[0]
    assert "of 10.0 s" in source.problems[0]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_url_gives_what_the_file_gives(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", video_s=2, audio_s=2)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        source = MediaSource(f"http://127.0.0.1:{server.server_port}/a.mp4")
        over_http = list(source.packets(UnpacedClock()))
        source.close()
        server.shutdown()
    _, from_file = read(path)
    assert [p.t_ns for p in over_http] == [p.t_ns for p in from_file]
    for one, other in zip(over_http, from_file, strict=True):
        if isinstance(one, AudioBlock) and isinstance(other, AudioBlock):
            assert np.array_equal(one.samples, other.samples)
    assert source.problems == []


def test_what_is_secret_in_a_url_is_in_no_name_and_in_no_message(tmp_path: Path) -> None:
    path = make(tmp_path / "a.wav", audio_s=0.5)
    (tmp_path / "notes.txt").write_text("hello\n" * 50)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        source = MediaSource(f"http://bob:hunter2@{host}/{path.name}?token=s3cr3t")
        source.close()
        wrong = [opening_fails_with(f"http://bob:hunter2@{host}/{name}?token=s3cr3t") for name in ("notes.txt", "none.mp4")]
        server.shutdown()
    assert source.name == f"http://{host}/a.wav?…"
    for name, message in zip(("notes.txt", "none.mp4"), wrong, strict=True):
        assert message.startswith(f"http://{host}/{name}?…: ")


def test_a_title_that_is_not_utf_8_is_no_obstacle(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", audio_s=0.5, title="Cafe!")
    path.write_bytes(path.read_bytes().replace(b"Cafe!", b"Caf\xe9!"))
    source, packets = read(path)
    assert source.problems == []
    assert sound(packets)


def test_few_pictures_a_second_are_no_damage(tmp_path: Path) -> None:
    source, packets = read(make(tmp_path / "slow.mp4", video_s=5, fps=1))
    assert source.problems == []
    assert len(pictures(packets)) == 5


def opening_fails_with(location: Path | str) -> str:
    with pytest.raises(SourceError) as caught:
        MediaSource(str(location))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_input_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    assert "no such file" in opening_fails_with(tmp_path / "none.mp4")
    assert "a folder" in opening_fails_with(tmp_path)
    for name, content in {
        "notes.txt": b"hello\n" * 50,
        "page.html": b"<p>hello</p>",
        "blank.mp4": b"",
        "noise.mp4": bytes(range(256)) * 40,
    }.items():
        (tmp_path / name).write_bytes(content)
        message = opening_fails_with(tmp_path / name)
        assert "not a media file" in message or "no video and no audio" in message
    assert "cannot be opened" in opening_fails_with("http://127.0.0.1:9/none.mp4")


def test_an_mp4_without_its_index_is_named_as_such(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", video_s=1)
    data = path.read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: data.index(b"moov") - 4])
    assert "without its index" in opening_fails_with(tmp_path / "b.mp4")


@pytest.mark.parametrize("name", ["talk1.mp4", "address.mp4", "enters.mov", "leaves.mov", "grid_swwp2s.mpg"])
def test_real_clips_read_whole_and_in_order(shared: Path, name: str) -> None:
    source = MediaSource(str(shared / "clips" / name))
    last = {VideoFrame: -1, AudioBlock: -1}
    counts = {VideoFrame: 0, AudioBlock: 0}
    for packet in source.packets(UnpacedClock()):
        assert isinstance(packet, VideoFrame | AudioBlock)
        assert packet.t_ns > last[type(packet)]
        last[type(packet)] = packet.t_ns
        counts[type(packet)] += 1
    source.close()
    assert source.problems == []
    assert all(counts.values())
