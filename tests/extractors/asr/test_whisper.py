"""The wiring to faster-whisper, with a model that plays its part, and with a tiny one whose weights are random.

The second runs all of faster-whisper and CTranslate2 as a real one would; what it says means nothing. Real weights cannot be
had where this was developed.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from extractors.asr.recogniser import Word
from extractors.asr.whisper import WhisperRecogniser
from extractors.assets import FOLDER_VARIABLE
from extractors.errors import ExtractorError, Unavailable
from extractors.sound import SAMPLE_NS
from extractors.vad import CHUNK, VoiceChunk

faster_whisper = pytest.importorskip("faster_whisper")
START_NS = 5_000_000_000


class Played:
    """Stands for `faster_whisper.WhisperModel`; keeps what it was made of and asked."""

    made: dict[str, Any]
    asked: list[tuple[np.ndarray, dict[str, Any]]]

    def __init__(self, name: str, **options: Any) -> None:
        Played.made = {"name": name, **options}
        Played.asked = []

    def transcribe(self, sound: np.ndarray, **options: Any) -> tuple[Any, Any]:
        Played.asked.append((sound, options))

        def word(text: str, start: float, end: float, probability: float) -> SimpleNamespace:
            return SimpleNamespace(word=text, start=start, end=end, probability=np.float64(probability))

        segments = [
            SimpleNamespace(words=[word(" Ask", 0.1, 0.25, 0.9), word(" not", 0.25, 0.4, 0.8)]),
            SimpleNamespace(words=[]),
            SimpleNamespace(words=[word(" what…", 0.5, 9.0, 0.3)]),
        ]
        return iter(segments), SimpleNamespace(language="en")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(faster_whisper, "WhisperModel", Played)


def speech(count: int) -> list[VoiceChunk]:
    samples = np.full(CHUNK, -16384, np.int16)
    return [VoiceChunk(START_NS + index * CHUNK * SAMPLE_NS, samples, True, True) for index in range(count)]


@pytest.mark.usefixtures("played")
def test_words_are_placed_on_the_time_axis():
    recogniser = WhisperRecogniser()
    for chunk in speech(20):
        recogniser.push(chunk)
    known = recogniser.finish()
    assert known.final == (
        Word("Ask", START_NS + 100_000_000, START_NS + 250_000_000, 0.9),
        Word("not", START_NS + 250_000_000, START_NS + 400_000_000, 0.8),
        Word("what…", START_NS + 500_000_000, START_NS + 640_000_000, 0.3),  # cut where the sound ends
    )
    assert all(type(word.confidence) is float for word in known.final)
    assert known.watermark_ns == START_NS + 640_000_000


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("language", ["en", None])
def test_what_the_model_is_asked(language):
    recogniser = WhisperRecogniser(language=language)
    for chunk in speech(32):  # a second: the decode is due while the stretch lasts
        recogniser.push(chunk)
    (sound, options), *more = Played.asked
    assert not more
    assert options == {
        "language": language,
        "initial_prompt": None,
        "word_timestamps": True,
        "condition_on_previous_text": False,
        "temperature": 0.0,
        "vad_filter": False,
    }
    assert sound.dtype == np.float32
    assert sound.tolist() == [-0.5] * CHUNK * 32
    recogniser.finish()
    recogniser.push(VoiceChunk(START_NS + 2_000_000_000, np.zeros(CHUNK, np.int16), True, True))
    recogniser.finish()
    assert Played.asked[-1][1]["initial_prompt"] == "Ask not what…"


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    ("given", "model", "numbers"),
    [
        ({"device": "cpu"}, "tiny", "int8"),
        ({"device": "cuda"}, "large-v3-turbo", "float16"),
        ({"device": "cpu", "model": "tiny"}, "tiny", "int8"),
        ({"device": "cuda", "model": "small", "compute_type": "int8_float16"}, "small", "int8_float16"),
        ({"device": "cpu", "compute_type": "float32"}, "tiny", "float32"),
    ],
)
@pytest.mark.parametrize("download", [False, True])
def test_how_the_model_is_made(given, model, numbers, download, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    recogniser = WhisperRecogniser(**given, download=download)
    assert recogniser.name == f"faster-whisper {model} ({numbers})"
    made = {"name": model, "device": given["device"], "compute_type": numbers, "cpu_threads": 1}
    assert Played.made == {**made, "local_files_only": not download}
    if "model" in given:
        assert recogniser.notice is None
    else:
        assert f"words come from Whisper {model}, because on the" in recogniser.notice
        assert "--set asr.model=" in recogniser.notice


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(("cores", "model"), [(None, "tiny"), (3, "tiny"), (4, "base"), (64, "base")])
def test_a_cpu_gets_the_model_that_it_can_keep_up_with(cores, model, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert WhisperRecogniser().name == f"faster-whisper {model} (int8)"


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(("cores", "threads"), [(None, 1), (1, 1), (2, 1), (4, 3), (64, 4)])
def test_a_core_is_left_to_the_rest(cores, threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    WhisperRecogniser()
    assert Played.made["cpu_threads"] == threads


@pytest.mark.usefixtures("played")
def test_a_folder_of_weights_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    WhisperRecogniser("base")
    assert Played.made["name"] == "base"
    (tmp_path / "faster-whisper-base").mkdir()
    WhisperRecogniser("base")
    assert Path(Played.made["name"]) == tmp_path / "faster-whisper-base"


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    ("download", "reason"), [(False, "is not on this machine"), (True, r"could not be loaded \(OSError\)")]
)
def test_a_model_that_cannot_be_had_is_unavailable(monkeypatch, download, reason):
    def fail(*_: object, **__: object) -> None:
        raise OSError("offline\nand more")

    monkeypatch.setattr(faster_whisper, "WhisperModel", fail)
    with pytest.raises(Unavailable, match=f"the Whisper model tiny {reason}; run with --asr whisper once") as refusal:
        WhisperRecogniser("tiny", download=download)
    assert FOLDER_VARIABLE in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_model_that_nobody_knows_is_unavailable(monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(Unavailable, match=r"^faster-whisper huge \(int8\) cannot be used on cpu \(Invalid model size 'huge'"):
        WhisperRecogniser("huge", download=False)


def test_without_the_package_it_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(Unavailable, match="pip install"):
        WhisperRecogniser()


@pytest.mark.usefixtures("played")
def test_a_failing_decode_is_one_clear_error(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failed with error out of memory\nand more")

    recogniser = WhisperRecogniser()
    monkeypatch.setattr(Played, "transcribe", fail)
    recogniser.push(speech(1)[0])
    with pytest.raises(ExtractorError, match=r"^Whisper failed \(CUDA failed with error out of memory\)$"):
        recogniser.finish()


@pytest.mark.usefixtures("played")
def test_nothing_is_decoded_after_close():
    recogniser = WhisperRecogniser()
    recogniser.close()
    recogniser.close()
    recogniser.push(speech(1)[0])
    with pytest.raises(ExtractorError, match="has been closed"):
        recogniser.finish()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole Whisper model for CTranslate2: one layer, 16 numbers wide, random weights, 200 made-up words."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    converters = pytest.importorskip("ctranslate2.converters.transformers")
    folder = tmp_path_factory.mktemp("models") / "faster-whisper-random"
    folder.mkdir()
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    text = letters + [f"Ġw{index}" for index in range(200)]
    marks = "endoftext startoftranscript en translate transcribe startoflm startofprev nospeech notimestamps".split()
    special = [f"<|{mark}|>" for mark in marks]
    times = [f"<|{index * 0.02:.2f}|>" for index in range(1501)]

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={piece: index for index, piece in enumerate(text)}, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))

    torch.manual_seed(0)
    end = len(text)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=len(text + special + times),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            pad_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
            decoder_start_token_id=end + 1,
        )
    )
    with torch.no_grad():
        spec = converters.WhisperLoader().get_model_spec(model.eval())
    spec.register_vocabulary(text + special + times)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [end]
    spec.config.lang_ids = [end + 2]
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    return folder


def test_faster_whisper_itself_runs(tiny, jfk, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tiny.parent))
    recogniser = WhisperRecogniser("random")
    known = []
    for start in range(0, len(jfk[:80_000]), CHUNK):
        known.append(recogniser.push(VoiceChunk(start * SAMPLE_NS, jfk[start : start + CHUNK], True, True)))
    known.append(recogniser.finish())
    recogniser.close()
    words = [word for part in known for word in part.final]
    assert len(words) > 1
    assert any(part.provisional for part in known)
    edges = [edge for word in words for edge in (word.start_ns, word.end_ns)]
    assert edges == sorted(edges)
    assert edges[-1] <= known[-1].watermark_ns == 5_024_000_000
    assert all(word.text and word.text == word.text.strip() for word in words)
    assert all(0 <= word.confidence <= 1 for word in words)


def test_too_short_a_sound_is_no_error(tiny, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tiny.parent))
    recogniser = WhisperRecogniser("random")
    recogniser.push(VoiceChunk(0, np.zeros(1, np.int16), True, True))
    assert recogniser.finish().watermark_ns == SAMPLE_NS


def test_numbers_that_the_device_does_not_have_are_unavailable(tiny, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tiny.parent))
    with pytest.raises(Unavailable, match=r"faster-whisper random \(int4\) cannot be used on cpu \(.*int4") as refusal:
        WhisperRecogniser("random", compute_type="int4")
    assert "--set asr.compute_type=" in str(refusal.value)
