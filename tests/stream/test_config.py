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
    for part in ("asr.modle: unknown key, expected one of engine, model, language", "windows.hop_ms", "session", "nonsense"):
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
    ],
)
def test_a_wrong_model_is_told(override: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(None, (override,))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
