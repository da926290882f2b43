import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.contract import FeatureRows
from extractors.errors import Unavailable
from extractors.face import BLENDSHAPES, CONTRACT, POSE, FaceExtractor, _native_notices_hidden, head_pose

FRAME_NS = 40_000_000
X = CONTRACT.columns.index("head_x_cm")
Image = np.ndarray
Frames = Callable[..., list[tuple[int, Image]]]


@pytest.fixture(scope="module")
def frames(shared: Path) -> Frames:
    """Every `step`-th frame of a clip's first `count`, as (nanoseconds, RGB)."""
    av = pytest.importorskip("av")

    @cache
    def read(name: str, *, count: int = 10_000, step: int = 1) -> list[tuple[int, Image]]:
        with av.open(str(shared / "clips" / name)) as file:
            stream = file.streams.video[0]
            stream.thread_type = "AUTO"
            chosen = islice(file.decode(stream), 0, count, step)
            return [(round(frame.pts * frame.time_base * 10**9), frame.to_ndarray(format="rgb24")) for frame in chosen]

    return read


@pytest.fixture(scope="module")
def model(assets: Path) -> Path:
    return assets / "face_landmarker.task"


@pytest.fixture
def extractor(model: Path) -> Iterator[FaceExtractor]:
    extractor = FaceExtractor(model)
    yield extractor
    extractor.close()


@pytest.fixture(scope="module")
def look(model: Path) -> Callable[[list[tuple[int, Image]]], list[FeatureRows]]:
    """What a new extractor makes of each frame."""

    def look(given: list[tuple[int, Image]]) -> list[FeatureRows]:
        extractor = FaceExtractor(model)
        rows = [extractor.push(*frame) for frame in given]
        extractor.close()
        return rows

    return look


def seen(rows: list[FeatureRows]) -> list[bool]:
    return [bool(len(part.t_ns)) for part in rows]


def test_a_talking_face_is_seen(frames, look):
    given = frames("talk1.mp4", count=75, step=4)
    rows = look(given)
    assert np.mean(seen(rows)) > 0.9
    assert np.median([column for part in rows for column in part.values[:, CONTRACT.columns.index("head_z_cm")]]) < -50


def test_each_frame_gives_one_row_or_one_absence_at_its_time(frames, look):
    given = frames("enters.mov", step=8)
    for (t_ns, _), part in zip(given, look(given), strict=True):
        assert [*part.t_ns.tolist(), *part.absent_ns.tolist()] == [t_ns]
        assert part.values.shape == (len(part.t_ns), len(CONTRACT.columns))
        assert (part.t_ns.dtype, part.values.dtype, part.absent_ns.dtype) == (np.int64, np.float32, np.int64)
        assert np.isfinite(part.values).all()
        assert part.values[:, : len(BLENDSHAPES)].min(initial=0) >= 0
        assert part.values[:, : len(BLENDSHAPES)].max(initial=1) <= 1


@pytest.mark.parametrize(("clip", "at_last"), [("enters.mov", True), ("leaves.mov", False)])
def test_absence_is_known(frames, look, clip, at_last):
    present = seen(look(frames(clip, step=8)))
    if at_last:
        present.reverse()
    assert np.mean(present[:6]) > 0.8
    assert not any(present[-6:])


def test_the_same_frames_give_the_same_bits(frames, look):
    given = frames("address.mp4", count=60, step=4)
    once, again = (b"".join(part.values.tobytes() for part in look(given)) for _ in range(2))
    assert len(once) > 10 * 4 * len(CONTRACT.columns)
    assert once == again


@pytest.mark.parametrize(
    "strided",
    [
        lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        lambda image: np.pad(image, ((0, 0), (7, 9), (0, 0)))[:, 7:-9],
        np.asfortranarray,
    ],
    ids=["BGR view", "crop", "Fortran"],
)
def test_a_strided_picture_is_read_right(frames, look, strided):
    given = frames("address.mp4", count=60, step=4)[:3]
    views = [(t_ns, strided(image)) for t_ns, image in given]
    assert not any(image.flags.c_contiguous for _, image in views)
    dense, read = look(given), look(views)
    assert all(seen(dense))
    assert [part.values.tobytes() for part in read] == [part.values.tobytes() for part in dense]


def test_frames_within_one_millisecond_keep_their_times(frames, extractor):
    (_, image), *_ = frames("address.mp4", count=60, step=4)
    times = [5_000_000, 5_000_100, 5_000_100, 5_999_999, 6_000_000, 6_000_001, 50_000_000]
    assert [extractor.push(t_ns, image).t_ns.tolist() for t_ns in times] == [[t_ns] for t_ns in times]


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)],
    ids=["grey", "RGBA", "float"],
)
def test_other_forms_are_refused(extractor, image):
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8 RGB, got"):
        extractor.push(0, image)


def test_a_picture_without_a_face_is_an_absence(extractor):
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    rows = extractor.push(7, noise)
    assert rows.absent_ns.tolist() == [7]


@pytest.fixture(scope="module")
def people(frames) -> tuple[Image, Image]:
    """Two real heads."""
    (_, address), *_ = frames("address.mp4", count=60, step=4)
    ((_, talk),) = frames("talk2.mp4", count=1)
    return address, talk[100:700, 240:840]


def scene(left: Image | None, right: Image | None, left_size: int, right_size: int) -> Image:
    """A picture with a head of this many pixels on the left and one on the right."""
    import cv2

    picture = np.full((512, 1024, 3), 128, np.uint8)
    for head, size, centre in ((left, left_size, 256), (right, right_size, 768)):
        if head is not None:
            top, first = 256 - size // 2, centre - size // 2
            resized = cv2.resize(head, (size, size), interpolation=cv2.INTER_AREA)
            picture[top : top + size, first : first + size] = resized
    return picture


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("left_size", "right_size"), [(480, 240), (512, 400), (400, 512)])
def test_the_larger_of_two_faces_is_followed(look, people, swapped, left_size, right_size):
    # Where "address" fills the picture's height, the detector alone is surer of the smaller face.
    left, right = people[::-1] if swapped else people
    alone = scene(left, None, left_size, 0) if left_size > right_size else scene(None, right, 0, right_size)
    (both,), (expected,) = look([(0, scene(left, right, left_size, right_size))]), look([(0, alone)])
    assert (both.values[0, X] < 0) == (left_size > right_size)
    np.testing.assert_allclose(both.values[0, : len(BLENDSHAPES)], expected.values[0, : len(BLENDSHAPES)], atol=0.15)
    np.testing.assert_allclose(both.values[0, X:], expected.values[0, X:], atol=0.5)


@pytest.mark.parametrize("swapped", [False, True])
def test_it_stays_with_a_person_until_they_leave(extractor, people, swapped):
    left, right = people[::-1] if swapped else people
    sizes = [(440 - 20 * step, 240 + 20 * step) for step in range(11)]  # the other one comes closer
    following = [extractor.push(step * FRAME_NS, scene(left, right, *size)) for step, size in enumerate(sizes)]
    assert all(seen(following))
    assert all(part.values[0, X] < 0 for part in following)
    after = [extractor.push((len(sizes) + step) * FRAME_NS, scene(None, right, *sizes[-1])) for step in range(4)]
    assert len(after[-1].t_ns)
    assert after[-1].values[0, X] > 0


def test_blendshapes_are_in_the_order_of_the_model(frames, model):
    mp = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    (_, image), *_ = frames("address.mp4", count=60, step=4)
    options = vision.FaceLandmarkerOptions(BaseOptions(model_asset_path=str(model)), output_face_blendshapes=True)
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        result = landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=image))
    shapes = sorted(result.face_blendshapes[0], key=lambda shape: shape.index)
    assert [shape.category_name for shape in shapes] == BLENDSHAPES
    assert CONTRACT.columns == (*BLENDSHAPES, *POSE)


def test_a_bundle_that_is_none_is_unavailable(tmp_path):
    (tmp_path / "face_landmarker.task").write_bytes(b"no bundle")
    with pytest.raises(Unavailable, match=r"^MediaPipe does not load \([^\n]+\); on Debian: apt install [^\n]+$"):
        FaceExtractor(tmp_path / "face_landmarker.task")


def test_native_notices_are_hidden_unless_it_fails(capfd):
    with _native_notices_hidden():
        os.write(2, b"a notice\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"

    @_native_notices_hidden()
    def fail() -> None:
        os.write(2, b"the reason\n")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert capfd.readouterr().err == "the reason\n"


def transformation(yaw: float = 0, pitch: float = 0, roll: float = 0, *, scale: float = 1, position=(0, 0, 0)) -> np.ndarray:
    """The face turned by roll about z, then pitch about x, then yaw about y."""
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = scale * about_y @ about_x @ about_z
    matrix[:3, 3] = position
    return matrix


@pytest.mark.parametrize("angle", [-1.2, -0.1, 0, 0.3, 1.4])
@pytest.mark.parametrize(("index", "name"), list(enumerate(["yaw", "pitch", "roll"])))
def test_a_turn_about_one_axis_is_that_angle(index, name, angle):
    pose = head_pose(transformation(**{name: angle}))
    assert pose[index] == pytest.approx(angle)
    assert [pose[other] for other in range(3) if other != index] == pytest.approx([0, 0])


TURN = st.floats(-1.5, 1.5)


@given(TURN, TURN, TURN, st.floats(0.5, 2), st.tuples(*[st.floats(-100, 100)] * 3))
def test_turns_about_all_axes_are_told_apart(yaw, pitch, roll, scale, position):
    pose = head_pose(transformation(yaw, pitch, roll, scale=scale, position=position))
    assert pose == pytest.approx((yaw, pitch, roll, *position), abs=1e-9)


def test_a_mirrored_picture_mirrors_the_pose(frames, look):
    t_ns, image = frames("address.mp4", count=60, step=4)[5]
    (there,), (mirrored,) = look([(t_ns, image)]), look([(t_ns, image[:, ::-1])])
    sign = np.array([-1, 1, -1, -1, 1, 1])  # yaw, roll and x turn round
    tolerance = np.array([0.1, 0.1, 0.05, 0.5, 0.5, 1.0])
    difference = np.abs(mirrored.values[0, -6:] - sign * there.values[0, -6:])
    assert (difference < tolerance).all(), difference
