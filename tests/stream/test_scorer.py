import numpy as np
import numpy.typing as npt
import pytest
import torch

from extractors.asr.recogniser import Word
from extractors.text import WIDTH
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from stream.engine import Engine
from stream.messages import LaneWindow, Window
from stream.scorer import Scorer

HOP = 250_000_000
CONFIG = CausalMMLatchConfig(text=WIDTH, audio=2, vision=2, max_steps=12)


class LastWordEmbedder:
    """Stands in for MiniLM: a vector that tells which words it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def embed(self, words: tuple[str, ...]) -> npt.NDArray[np.float32]:
        self.seen.append(tuple(words))
        return np.full(WIDTH, hash(tuple(words)) % 97 / 97, np.float32)


@pytest.fixture
def embedder() -> LastWordEmbedder:
    return LastWordEmbedder()


def scorer(embedder: LastWordEmbedder, tau: float = 2.0, tail: int = 8) -> Scorer:
    engine = Engine(CausalMMLatch.untrained(CONFIG), torch.device("cpu"), tail=tail)
    return Scorer(engine, embedder, hop_ns=HOP, smooth_tau_s=tau)  # type: ignore[arg-type]


def window(seq: int, *words: str, restart: bool = False, final: bool = True, vision: str = "value") -> Window:
    spoken = tuple(Word(word, seq * HOP, seq * HOP + 1 + n) for n, word in enumerate(words))
    value = LaneWindow(True, 1.0, np.ones(2, np.float32), seq * HOP)
    absent = LaneWindow(True, 0.0, np.zeros(2, np.float32), None)
    unknown = LaneWindow(False, 0.0, np.zeros(2, np.float32), None)
    text = LaneWindow(True, float(bool(words)), np.empty(0, np.float32), seq * HOP if words else None)
    lanes = {"text": text, "audio": value, "vision": {"value": value, "absent": absent, "unknown": unknown}[vision]}
    return Window(seq, seq * HOP, (seq + 1) * HOP, restart, lanes, spoken, final, 0.5)  # type: ignore[arg-type]


def test_a_word_is_embedded_with_the_utterance_so_far_and_a_restart_clears_it(embedder: LastWordEmbedder) -> None:
    target = scorer(embedder)
    counts = [
        target.commit(w).utterance_words
        for w in (window(0, "I", "Really", restart=True), window(1), window(2, "LOVE"), window(3, "It.", restart=True))
    ]
    assert embedder.seen == [("i", "really"), ("i", "really", "love"), ("it",)]
    assert counts == [2, 2, 3, 1]


def test_provisional_scores_leave_finals_alone_and_are_counted(embedder: LastWordEmbedder) -> None:
    quiet, busy = scorer(LastWordEmbedder()), scorer(embedder)
    inputs = [window(0, "a", restart=True), window(1, "b"), window(2)]
    expected = [quiet.commit(w) for w in inputs]
    first = busy.speculate([window(0, "x", restart=True, final=False)])
    second = busy.speculate([window(0, "y", restart=True, final=False)])
    found = [busy.commit(w) for w in inputs]
    assert (first.kind, first.rev, second.rev, found[0].rev, found[1].rev) == ("provisional", 0, 1, 2, 0)
    assert found[0].revised_from == second.sentiment
    assert found[1].revised_from is None
    assert [s.sentiment for s in found] == [s.sentiment for s in expected]
    assert [s.smooth for s in found] == [s.smooth for s in expected]


def test_smoothing_is_an_exponential_mean_over_event_time(embedder: LastWordEmbedder) -> None:
    scores = [scorer(embedder, tau=0.0).commit(window(0, restart=True))]
    assert scores[0].smooth == scores[0].sentiment
    target = scorer(embedder, tau=0.25)
    one, two = target.commit(window(0, restart=True)), target.commit(window(1, "word"))
    keep = np.exp(-1.0)
    assert two.smooth == pytest.approx(keep * one.smooth + (1 - keep) * two.sentiment)


def test_each_lane_says_what_was_known_of_it_and_why(embedder: LastWordEmbedder) -> None:
    target = scorer(embedder)
    tail = target.speculate([window(0, "guess", restart=True, final=False, vision="unknown")])
    assert (tail.lanes["text"].status, tail.lanes["text"].reason) == ("partial", "provisional_words")
    assert (tail.lanes["vision"].status, tail.lanes["vision"].reason) == ("unknown", "not_yet")
    score = target.commit(window(0, restart=True, vision="absent"))
    assert (score.lanes["text"].status, score.lanes["text"].reason) == ("missing", "no_words")
    assert (score.lanes["audio"].status, score.lanes["audio"].age_ns) == ("ok", HOP)
    assert (score.lanes["vision"].status, score.lanes["vision"].reason) == ("missing", "no_face")
    assert target.commit(window(1, vision="unknown")).lanes["vision"].reason == "no_data"
    target.lose("vision", "unplugged")
    lost = target.commit(window(2, vision="unknown")).lanes["vision"]
    assert (lost.status, lost.reason) == ("unavailable", "unplugged")


def test_absence_and_unknown_are_different_inputs(embedder: LastWordEmbedder) -> None:
    absent = scorer(embedder).commit(window(0, restart=True, vision="absent"))
    unknown = scorer(embedder).commit(window(0, restart=True, vision="unknown"))
    assert absent.sentiment != unknown.sentiment


def test_a_tail_beyond_what_the_engine_keeps_is_cut(embedder: LastWordEmbedder) -> None:
    inputs = [window(seq, f"word{seq}", restart=seq == 0) for seq in range(6)]
    cut, whole = scorer(embedder, tail=3), scorer(LastWordEmbedder(), tail=3)
    assert cut.speculate(inputs[:5]) == whole.speculate(inputs[:3])
    assert len(embedder.seen) == 3
    assert cut.commit(inputs[0]) == whole.commit(inputs[0])
    last = cut.speculate(inputs[1:])
    assert (last.seq, last.rev) == (3, 0)
    assert last.sentiment == pytest.approx(scorer(embedder).speculate(inputs[:4]).sentiment, abs=1e-5)


def test_sentiment_uncertainty_and_weights_are_the_models(embedder: LastWordEmbedder) -> None:
    inputs = [window(0, "so", restart=True), window(1, "good"), window(2, vision="absent")]
    lanes = {
        "text": np.stack([embedder.embed(("so",)), embedder.embed(("so", "good")), np.zeros(WIDTH, np.float32)]),
        "audio": np.ones((3, 2), np.float32),
        "vision": np.array([[1, 1], [1, 1], [0, 0]], np.float32),
    }
    flags = {"text": [[1, 1], [1, 1], [1, 0]], "audio": [[1, 1]] * 3, "vision": [[1, 1], [1, 1], [1, 0]]}
    model = CausalMMLatch.untrained(CONFIG)
    windows = {name: torch.from_numpy(np.hstack([lanes[name], np.array(flags[name], np.float32)]))[None] for name in lanes}
    expected, _ = model(windows, model.initial_state(1))
    target = scorer(embedder)
    scores = [target.speculate(inputs[:count]) for count in (1, 2, 3)] + [target.commit(each) for each in inputs]
    for score in scores:
        assert score.sentiment == pytest.approx(expected.sentiment[0, score.seq].item(), abs=1e-5)
        assert score.uncertainty == pytest.approx(expected.uncertainty[0, score.seq].item(), abs=1e-5)
        weights = [score.lanes[name].weight for name in ("text", "audio", "vision")]
        assert weights == pytest.approx(expected.weights[0, score.seq].tolist(), abs=1e-5)
    assert len({round(score.uncertainty, 4) for score in scores}) == 3
