import sys
from typing import Any

import pytest

from extractors import asr
from extractors.asr import sphinx, whisper
from extractors.assets import FOLDER_VARIABLE
from extractors.errors import Unavailable


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Whisper model on this machine, whatever there really is."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


class Made:
    """Stands for a recogniser; keeps what it was made of."""

    notice = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.made = (arguments, options)


def test_without_weights_auto_takes_pocketsphinx_and_says_why():
    pytest.importorskip("faster_whisper")
    recogniser, notice = asr.create("auto", model="base", language="en", device="cpu")
    recogniser.close()
    assert recogniser.name == "pocketsphinx"
    assert notice is not None
    assert notice.startswith("words come from PocketSphinx (English, many errors), because the Whisper model base is not on")
    assert FOLDER_VARIABLE in notice


def test_without_the_package_auto_takes_pocketsphinx_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    monkeypatch.setattr(sphinx, "SphinxRecogniser", Made)
    recogniser, notice = asr.create("auto", model="base", language="auto", device="cpu")
    assert isinstance(recogniser, Made)
    assert notice is not None
    assert "faster-whisper is not installed" in notice


@pytest.mark.parametrize(
    ("engine", "language", "options"),
    [
        ("whisper", "auto", {"language": None, "download": True}),
        ("whisper", "de", {"language": "de", "download": True}),
        ("auto", "en", {"language": "en", "download": False}),
    ],
)
def test_whisper_is_taken_where_it_is(monkeypatch, engine, language, options):
    monkeypatch.setattr(whisper, "WhisperRecogniser", Made)
    recogniser, notice = asr.create(
        engine, model="small", compute_type="int8", language=language, device="cuda", max_stretch_ns=7_000_000_000
    )
    assert isinstance(recogniser, Made)
    given = {"device": "cuda", "compute_type": "int8", "max_stretch_ns": 7_000_000_000}
    assert recogniser.made == (("small",), given | options)
    assert notice is None


def test_a_choice_by_device_is_told(monkeypatch):
    monkeypatch.setattr(whisper, "WhisperRecogniser", Made)
    monkeypatch.setattr(Made, "notice", "words come from Whisper base, because")
    assert asr.create("auto", model=None, language="en", device="cpu")[1] == "words come from Whisper base, because"


def test_sphinx_asked_for_needs_no_notice(monkeypatch):
    monkeypatch.setattr(sphinx, "SphinxRecogniser", Made)
    recogniser, notice = asr.create("sphinx", model="base", language="en", device="cpu", max_stretch_ns=7_000_000_000)
    assert isinstance(recogniser, Made)
    assert recogniser.made == ((), {"max_stretch_ns": 7_000_000_000})
    assert notice is None


def test_whisper_asked_for_is_not_replaced(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(Unavailable, match="faster-whisper is not installed"):
        asr.create("whisper", model="base", language="en", device="cpu")


@pytest.mark.parametrize("engine", ["sphinx", "auto"])
def test_pocketsphinx_knows_english_only(engine):
    with pytest.raises(Unavailable, match="knows English only, not de"):
        asr.create(engine, model="base", language="de", device="cpu")
