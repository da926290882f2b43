"""RAVDESS speech: 24 actors, two statements, eight emotions.

A folder with files named `modality-channel-emotion-intensity-statement-repetition-actor`. Actors 21 to 24 are for tests, 19 and
20 for validation. Source: S. Livingstone and F. Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS
ONE 13(5), 2018; CC BY-NC-SA 4.0.
"""

from pathlib import Path

from train import scale
from train.errors import DataError
from train.items import Item, Sound, Split

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
POSITIVE, NEGATIVE, NEUTRAL = ("calm", "happy"), ("sad", "angry", "fearful", "disgust"), ("neutral",)
ACTORS = 24
_VALID_FROM, _TEST_FROM = 19, 21
_STRONG = 2


def items(folder: Path) -> list[Item]:
    """All recordings, by name.

    Raises:
        DataError: There are none, or one is named in another way.
    """
    found = [_item(path) for path in sorted(folder.glob("*.flac"))]
    if not found:
        raise DataError(f"{folder} holds no recordings; expected files like 03-01-05-02-01-01-24.flac")
    return found


def _item(path: Path) -> Item:
    try:
        _modality, _channel, number, intensity, _statement, _repetition, actor = map(int, path.stem.split("-"))
        if not (1 <= number <= len(EMOTIONS) and 1 <= intensity <= _STRONG and 1 <= actor <= ACTORS):
            raise ValueError
    except ValueError as error:
        raise DataError(f"{path} is not named as RAVDESS does, like 03-01-05-02-01-01-24.flac") from error
    emotion = EMOTIONS[number - 1]
    value = scale.RAVDESS.get(emotion)
    if value and intensity == _STRONG:
        value += scale.RAVDESS_STRONG if value > 0 else -scale.RAVDESS_STRONG
    split: Split = "test" if actor >= _TEST_FROM else "valid" if actor >= _VALID_FROM else "train"
    return Item(path.stem, split, emotion, value, Sound(path))
