"""Face: 52 blendshapes and the head's pose from MediaPipe FaceLandmarker.

VIDEO mode is used because it is deterministic and never drops a frame (LIVE_STREAM does both otherwise). Source:
https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extractors.assets import FACE_LANDMARKER, fetch
from extractors.contract import FeatureContract, FeatureRows
from extractors.errors import Unavailable

# The order in which the blendshape model puts them out; each in [0, 1].
BLENDSHAPES = (
    "_neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft "
    "cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight "
    "eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft "
    "eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft "
    "mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight "
    "mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft "
    "mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft "
    "noseSneerRight"
).split()
POSE = ("head_yaw_rad", "head_pitch_rad", "head_roll_rad", "head_x_cm", "head_y_cm", "head_z_cm")

CONTRACT = FeatureContract(
    name="face",
    version=1,
    columns=(*BLENDSHAPES, *POSE),
    parameters={"landmarker_sha256": FACE_LANDMARKER.sha256, "mode": "video", "acquire": "largest"},
)

# The landmarks around a face in their order, MediaPipe's FACE_OVAL.
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_MAX_FACES = 4  # looked at when nobody is tracked; more people than that in front of one camera is not this program's scene
_MARGIN = 0.3  # of a face's box, blanked around it: hair, chin and what the detector would still take for a face


class FaceExtractor:
    """Follows one face through a video.

    The tracker holds one face, and MediaPipe keeps to it from frame to frame. Whenever nobody is tracked, all faces are looked
    for and every one but the largest is blanked in the frame that the tracker starts from. (A tracker of several faces would
    offer a choice in every frame; measured on real clips it loses a single talking face that a tracker of one keeps.)

    Example:
        extractor = FaceExtractor()
        rows = extractor.push(0, image)  # one row, or one moment of known absence
        extractor.close()

    Attributes:
        outline: Of the face in the last frame, for display, (36, 2), as shares of the frame's width and height; None without.
    """

    contract = CONTRACT

    def __init__(self, model: Path | None = None) -> None:
        """Load the landmarker.

        Args:
            model: The `face_landmarker.task` bundle; by default the verified asset.

        Raises:
            Unavailable: The bundle cannot be had, or MediaPipe does not load (libEGL and libGLESv2 are the usual reason).
        """
        path = model or fetch(FACE_LANDMARKER)
        try:
            with _native_notices_hidden():
                import mediapipe as mp
                from mediapipe.tasks.python import BaseOptions, vision

                self._mp: Any = mp

                def landmarker(mode: Any, faces: int) -> Any:
                    return vision.FaceLandmarker.create_from_options(
                        vision.FaceLandmarkerOptions(
                            base_options=BaseOptions(model_asset_path=str(path)),
                            running_mode=mode,
                            num_faces=faces,
                            output_face_blendshapes=mode is vision.RunningMode.VIDEO,
                            output_facial_transformation_matrixes=mode is vision.RunningMode.VIDEO,
                        )
                    )

                self._tracker = landmarker(vision.RunningMode.VIDEO, 1)
                self._finder = landmarker(vision.RunningMode.IMAGE, _MAX_FACES)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise Unavailable(
                f"MediaPipe does not load ({str(error).splitlines()[0]}); on Debian: apt install libegl1 libgles2 libgl1"
            ) from error
        self._last_ms = -1
        self._tracking = False
        self.outline: npt.NDArray[np.float32] | None = None

    def push(self, t_ns: int, image: npt.NDArray[np.uint8]) -> FeatureRows:
        """Look at the next frame.

        Args:
            t_ns: The moment of the frame, nanoseconds, not before the last one.
            image: RGB, uint8, shape (H, W, 3).

        Returns:
            One row at `t_ns`, or one absence at `t_ns` if no face is in view.

        Raises:
            ValueError: The image has another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
        image = np.ascontiguousarray(image)  # MediaPipe reads a strided array as if it were dense, and then finds no face
        if not self._tracking:
            image = self._only_largest(image)
        # MediaPipe wants strictly increasing milliseconds; two frames may lie in the same one.
        self._last_ms = max(self._last_ms + 1, t_ns // 1_000_000)
        result = self._tracker.detect_for_video(self._wrap(image), self._last_ms)
        self._tracking = bool(result.face_blendshapes)
        points = result.face_landmarks[0] if self._tracking else ()
        self.outline = np.array([[points[i].x, points[i].y] for i in _OVAL], np.float32) if points else None  # (36, 2)
        moment = np.array([t_ns], np.int64)
        if not self._tracking:
            return FeatureRows(moment[:0], np.empty((0, len(CONTRACT.columns)), np.float32), moment)
        score = {shape.category_name: shape.score for shape in result.face_blendshapes[0]}
        pose = head_pose(np.asarray(result.facial_transformation_matrixes[0], np.float64))
        row = np.array([*(score[name] for name in BLENDSHAPES), *pose], np.float32)  # (58,)
        return FeatureRows(moment, row[None], moment[:0])

    def close(self) -> None:
        """Free MediaPipe's graphs."""
        self._tracker.close()
        self._finder.close()

    def _wrap(self, image: npt.NDArray[np.uint8]) -> Any:
        return self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=image)

    def _only_largest(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        boxes = [_box(landmarks, image.shape) for landmarks in self._finder.detect(self._wrap(image)).face_landmarks]
        if len(boxes) < 2:
            return image
        boxes.sort(key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        left, top, right, bottom = boxes.pop()
        alone = image.copy()
        for x0, y0, x1, y1 in boxes:
            alone[y0:y1, x0:x1] = 0
        alone[top:bottom, left:right] = image[top:bottom, left:right]  # where boxes overlap, the largest face stays whole
        return alone


def head_pose(matrix: npt.NDArray[np.float64]) -> tuple[float, float, float, float, float, float]:
    """Yaw, pitch and roll in radians and the position in centimetres from MediaPipe's (4, 4) facial transformation.

    The matrix maps the canonical face, in centimetres, into the camera's space: x to the right, y up, z towards the viewer.
    The angles are those of R = Ry(yaw) Rx(pitch) Rz(roll), so all are 0 for a face that looks into the camera.
    """
    rotation = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(-rotation[1, 2], -1.0, 1.0))
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    x, y, z = matrix[:3, 3]
    return float(yaw), float(pitch), float(roll), float(x), float(y), float(z)


@contextlib.contextmanager
def _native_notices_hidden() -> Iterator[None]:
    """Keep what native code writes to the standard error away from it while all goes well.

    MediaPipe's libraries print notices there as they start, whatever the logging settings; they would land in the middle of a
    console display. If the body fails, what was held back is shown.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _box(landmarks: Sequence[Any], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The pixel box (x0, y0, x1, y1) around normalised landmarks, widened by `_MARGIN` and cut to the image."""
    height, width = shape[:2]
    xs = np.array([point.x for point in landmarks]) * width
    ys = np.array([point.y for point in landmarks]) * height
    wide, high = _MARGIN * (xs.max() - xs.min()), _MARGIN * (ys.max() - ys.min())
    x0, y0 = max(0, int(xs.min() - wide)), max(0, int(ys.min() - high))
    return x0, y0, min(width, int(xs.max() + wide)), min(height, int(ys.max() + high))
