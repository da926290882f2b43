from pathlib import Path

import pytest
import yaml

from stream.config import Config, load
from stream.errors import UsageError
from tests.conftest import ROOT


def test_the_documented_defaults_are_the_defaults() -> None:
    assert yaml.safe_load((ROOT / "configs" / "default.yaml").read_text()) == Config().model_dump()


def test_overrides_win_over_the_file_and_the_last_one_over_the_first(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("windows: {hop_ms: 500}\nasr: {engine: sphinx}\n")
    config = load(path, ("windows.hop_ms=200", "windows.hop_ms=125", "session=room-1"))
    assert (config.windows.hop_ms, config.windows.hop_ns, config.asr.engine, config.session) == (
        125,
        125_000_000,
        "sphinx",
        "room-1",
    )


def test_all_errors_are_told_at_once_in_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        load(None, ("asr.modle=x", "windows.hop_ms=5", "session=a/b", "nonsense=1"))
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "asr.modle: unknown key, expected one of engine, model, compute_type",
        "windows.hop_ms",
        "session",
        "nonsense",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("windows: [", "not valid YAML in line"),
        ("- a\n- b\n", "expected keys and values"),
        ("windows: 3\n", "windows: "),
        ("\xff\xfe", "not UTF-8"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load(tmp_path / "empty.yaml") == Config()


def test_a_missing_file_and_a_broken_override_are_told() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(Path("does-not-exist.yaml"))
    with pytest.raises(UsageError, match="KEY=VALUE"):
        load(None, ("session",))
    with pytest.raises(UsageError, match="not valid YAML"):
        load(None, ("session=[",))


def test_windows_of_an_utterance_round_so_that_the_gap_is_never_shorter() -> None:
    assert load(None, ("windows.hop_ms=300",)).windows.gap_windows == 4
    assert load().windows.gap_windows == 4
    assert load().windows.max_windows == 120


def test_a_model_is_none_or_a_location(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {checkpoint: owner/name@v1, cuda_graphs: false}\n")
    assert (load().model.checkpoint, load().model.cuda_graphs) == (None, True)
    assert (load(path).model.checkpoint, load(path).model.cuda_graphs) == ("owner/name@v1", False)
    assert load(path, ("model.checkpoint=null",)).model.checkpoint is None
    assert load(path, ("model.checkpoint=a/b ü",)).model.checkpoint == "a/b ü"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("model.checkpoint=''", "model.checkpoint: string should have at least 1 character"),
        ("model.checkpoint=3", "model.checkpoint: input should be a valid string, got 3"),
        ("model.cuda_graphs=sometimes", "model.cuda_graphs: input should be a valid boolean"),
        ("model.weights=a", "model.weights: unknown key, expected one of checkpoint, cuda_graphs"),
        ("asr.model=''", "asr.model: string should have at least 1 character"),
        ("asr.compute_type=8", "asr.compute_type: input should be a valid string, got 8"),
        ("asr.max_stretch_s=1.9", "asr.max_stretch_s: input should be greater than or equal to 2, got 1.9"),
        ("asr.max_stretch_s=31", "asr.max_stretch_s: input should be less than or equal to 30, got 31"),
        ("lateness.text_s=0.9", "lateness.text_s: input should be greater than or equal to 1, got 0.9"),
        ("lateness.audio_s=0.4", "lateness.audio_s: input should be greater than or equal to 0.5, got 0.4"),
        ("lateness.vision_s=61", "lateness.vision_s: input should be less than or equal to 60, got 61"),
        ("lateness.words_s=3", "lateness.words_s: unknown key, expected one of text_s, audio_s, vision_s"),
    ],
)
def test_a_wrong_value_is_told(override: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(None, (override,))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recogniser_is_chosen_by_the_device_unless_it_is_said() -> None:
    assert (load().asr.model, load().asr.compute_type) == (None, None)
    config = load(None, ("asr.model=small", "asr.compute_type=int8", "asr.max_stretch_s=2"))
    assert (config.asr.model, config.asr.compute_type, config.asr.max_stretch_s) == ("small", "int8", 2.0)
    assert load(None, ("asr.model=small", "asr.model=null")).asr.model is None


def test_lateness_is_by_lane() -> None:
    config = load(None, ("lateness.text_s=20", "lateness.audio_s=0.5", "lateness.vision_s=1.25"))
    assert config.lateness.lanes_ns == {"text": 20_000_000_000, "audio": 500_000_000, "vision": 1_250_000_000}


@pytest.mark.parametrize(
    ("overrides", "windows"),
    [
        (("windows.max_utterance_s=30",), 120),  # the longest utterance
        (("windows.max_utterance_s=5",), 88),  # 20 s of text, and 2 s until they are scored
        (("windows.max_utterance_s=5", "windows.hop_ms=300"), 67 + 8),
        (("lateness.vision_s=60",), 248),
        (("lateness.text_s=1", "lateness.audio_s=40"), 168),
    ],
)
def test_the_tail_holds_the_longest_utterance_and_what_may_be_late(overrides: tuple[str, ...], windows: int) -> None:
    assert load(None, ("lateness.text_s=20", *overrides)).tail_windows == windows


def test_words_are_waited_for_longer_than_speech_without_a_pause_lasts() -> None:
    assert load().lateness.text_s > load().asr.max_stretch_s
