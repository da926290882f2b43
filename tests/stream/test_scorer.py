from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from extractors.asr.recogniser import Word
from extractors.text import WIDTH
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from stream.engine import Engine
from stream.messages import LaneWindow, Part, Score, Window
from stream.scorer import Job, Scorer, score

HOP = 250_000_000
CONFIG = CausalMMLatchConfig(text=WIDTH, audio=2, vision=2, max_steps=12)


class LastWordEmbedder:
    """Stands in for MiniLM: a vector that tells which words it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def embed(self, words: tuple[str, ...]) -> npt.NDArray[np.float32]:
        self.seen.append(tuple(words))
        return np.full(WIDTH, (1 + hash(tuple(words)) % 97) / 98, np.float32)


@pytest.fixture
def embedder() -> LastWordEmbedder:
    return LastWordEmbedder()


def made(bucket: int = 1, tail: int = 8) -> tuple[Engine, list[int]]:
    """An engine, and of each call of its model the number of windows."""
    model, calls = CausalMMLatch.untrained(CONFIG), []
    engine = Engine(model, torch.device("cpu"), bucket=bucket, tail=tail)
    model.register_forward_pre_hook(lambda _, args: calls.append(args[0]["text"].shape[1]))
    return engine, calls


def scorer(embedder: LastWordEmbedder, tau: float = 2.0, tail: int = 8, engine: Engine | None = None) -> Scorer:
    return Scorer(engine or made(tail=tail)[0], embedder, hop_ns=HOP, smooth_tau_s=tau)  # type: ignore[arg-type]


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


def test_a_final_names_what_was_last_said_of_its_window_and_nothing_is_kept_of_it(embedder: LastWordEmbedder) -> None:
    target = scorer(embedder)
    for seq in range(30):
        tail = [window(seq, "a", restart=seq == 0), window(seq + 1, "b")]
        provisional = [target.speculate(tail[:1]), target.speculate(tail)]
        final = target.commit(tail[0])
        assert final.revised_from == provisional[0].sentiment
        assert final.revised_from != provisional[0].smooth or seq == 0
        assert (provisional[0].rev, final.rev) == ((0, 1) if seq == 0 else (1, 2))
        assert target._said.keys() == target._shown.keys() == {seq + 1}


def test_a_provisional_score_looks_up_few_new_words_and_a_final_one_its_own(embedder: LastWordEmbedder) -> None:
    target, quiet = scorer(embedder), scorer(LastWordEmbedder())
    old = [window(seq, f"old{seq}", restart=seq == 0, final=False) for seq in range(7)]
    for count in range(1, 8):
        target.speculate(old[:count])
    assert [words[-1] for words in embedder.seen] == [f"old{seq}" for seq in range(7)]  # each once
    new = [window(seq, f"new{seq}", restart=seq == 0) for seq in range(7)]
    del embedder.seen[:]
    before = target.request(Job(target, old, False)).steps
    after = target.request(Job(target, new, False)).steps
    assert [new.same(old) for new, old in zip(after, before, strict=True)] == [True] * 6 + [False]  # as they were
    assert [words[-1] for words in embedder.seen] == ["new6"]
    for _ in range(6):
        target.speculate(new)
    # By and by all of them, from the newest on.
    assert [words[-1] for words in embedder.seen[1:]] == ["new5", "new4", "new3", "new2", "new1", "new0"]
    assert [target.commit(each).sentiment for each in new] == [quiet.commit(each).sentiment for each in new]
    assert len(embedder.seen) == 7


def test_words_that_were_not_looked_up_yet_are_unknown_to_the_model_and_no_silence(embedder: LastWordEmbedder) -> None:
    inputs = [window(seq, f"word{seq}", restart=seq == 0) for seq in range(6)]
    unknown = LaneWindow(False, 0.0, np.empty(0, np.float32), None)
    without = [replace(each, words=(), lanes={**each.lanes, "text": unknown}) for each in inputs[:5]]
    some, other = scorer(embedder), scorer(LastWordEmbedder())
    found, expected = some.request(Job(some, inputs, False)), other.request(Job(other, without, False))
    for step, like in zip(found.steps[:5], expected.steps, strict=True):
        assert step.same(like)
    assert all(step.inputs[:WIDTH].any() for step in found.steps[5:])


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
    lanes = target.commit(window(0, restart=True, vision="absent")).lanes
    assert (lanes["text"].status, lanes["text"].reason) == ("missing", "no_words")
    assert (lanes["audio"].status, lanes["audio"].age_ns) == ("ok", HOP)
    assert (lanes["vision"].status, lanes["vision"].reason) == ("missing", "no_face")
    assert target.commit(window(1, vision="unknown")).lanes["vision"].reason == "no_data"


@pytest.mark.parametrize(
    ("text", "forced", "status", "reason"),
    [
        (LaneWindow(False, 0.0, np.empty(0, np.float32), None, "crashed"), (), "unavailable", "crashed"),
        (LaneWindow(False, 0.0, np.empty(0, np.float32), None), ("text", "voice"), "unknown", "late"),
        (LaneWindow(False, 0.0, np.empty(0, np.float32), None), ("voice",), "unknown", "no_data"),
        (LaneWindow(True, 0.0, np.empty(0, np.float32), None), (), "missing", "no_words"),
    ],
)
def test_a_lane_that_is_not_there_says_whether_it_was_lost_or_late(
    embedder: LastWordEmbedder, text: LaneWindow, forced: tuple[Part, ...], status: str, reason: str
) -> None:
    without = window(0, restart=True)
    without = replace(without, lanes={**without.lanes, "text": text}, forced=forced)
    found = scorer(embedder).commit(without).lanes
    assert (found["text"].status, found["text"].reason) == (status, reason)
    assert (found["audio"].status, found["audio"].reason) == ("ok", None)
    # Before a window is settled, nothing is late; what is lost is lost already.
    tail = scorer(embedder).speculate([replace(without, forced=())]).lanes["text"]
    assert (tail.status, tail.reason) == (status, reason if text.known or text.lost else "not_yet")


def test_absence_and_unknown_are_different_inputs(embedder: LastWordEmbedder) -> None:
    absent = scorer(embedder).commit(window(0, restart=True, vision="absent"))
    unknown = scorer(embedder).commit(window(0, restart=True, vision="unknown"))
    assert absent.sentiment != unknown.sentiment


def test_a_tail_beyond_what_the_engine_keeps_is_cut(embedder: LastWordEmbedder) -> None:
    inputs = [window(seq, f"word{seq}", restart=seq == 0) for seq in range(6)]
    cut, whole = scorer(embedder, tail=3), scorer(LastWordEmbedder(), tail=3)
    assert cut.speculate(inputs[:5]) == whole.speculate(inputs[:3])
    assert [words[-1] for words in embedder.seen] == ["word2"]
    assert cut.commit(inputs[0]) == whole.commit(inputs[0])
    last = [cut.speculate(inputs[1:]) for _ in range(2)][-1]  # twice, until all words have been looked up
    assert (last.seq, last.rev) == (3, 1)
    plain = scorer(embedder)
    expected = [plain.speculate(inputs[:4]) for _ in range(4)][-1]
    assert last.sentiment == pytest.approx(expected.sentiment, abs=1e-5)


def test_sentiment_uncertainty_and_weights_are_the_models(embedder: LastWordEmbedder) -> None:
    inputs = [window(0, "so", restart=True), window(1, "good"), window(2, vision="absent")]
    lanes = {
        "text": np.stack([embedder.embed(("so",)), *[embedder.embed(("so", "good"))] * 2]),
        "audio": np.ones((3, 2), np.float32),
        "vision": np.array([[1, 1], [1, 1], [0, 0]], np.float32),
    }
    flags = {"text": [[1, 1], [1, 1], [1, 0]], "audio": [[1, 1]] * 3, "vision": [[1, 1], [1, 1], [1, 0]]}
    model = CausalMMLatch.untrained(CONFIG)
    windows = {name: torch.from_numpy(np.hstack([lanes[name], np.array(flags[name], np.float32)]))[None] for name in lanes}
    expected, _ = model(windows, model.initial_state(1))
    target = scorer(embedder)
    scores = [target.speculate(inputs[:count]) for count in (1, 2, 3)] + [target.commit(each) for each in inputs]
    for found in scores:
        assert found.sentiment == pytest.approx(expected.sentiment[0, found.seq].item(), abs=1e-5)
        assert found.uncertainty == pytest.approx(expected.uncertainty[0, found.seq].item(), abs=1e-5)
        weights = [found.lanes[name].weight for name in ("text", "audio", "vision")]
        assert weights == pytest.approx(expected.weights[0, found.seq].tolist(), abs=1e-5)
    assert len({round(found.uncertainty, 4) for found in scores}) == 3


TALK = [window(0, "a", restart=True), window(1, "b"), window(2), window(3, "c", "d"), window(4, restart=True), window(5, "e")]


def told(scores: Sequence[Score]) -> list[tuple[object, ...]]:
    """All of the scores but for what a longer call may change in the last digits."""
    return [
        (s.kind, s.seq, s.rev, s.t_start_ns, s.t_end_ns, s.words, s.utterance_words, s.voiced, s.revised_from is None)
        for s in scores
    ]


def test_the_jobs_of_several_sessions_are_done_together_and_each_as_if_alone() -> None:
    engine, calls = made(bucket=3)
    together = [scorer(LastWordEmbedder(), engine=engine) for _ in range(3)]
    alone = []
    for row in range(3):
        engine, _ = made(bucket=3)
        alone.append([scorer(LastWordEmbedder(), engine=engine) for _ in range(3)][row])
    talks = [[replace(each, voiced=row / 3) for each in TALK] for row in range(3)]
    for seq in range(5):
        # One is settled, one shows its tail first, one afterwards.
        wanted = [(0, True, seq, 1), (1, False, seq, 3), (2, True, seq, 1), (2, False, seq + 1, 1), (1, True, seq, 1)]
        for batch in (wanted[:3], wanted[3:]):
            jobs = [Job(together[who], talks[who][start : start + count], final) for who, final, start, count in batch]
            calls.clear()
            found = score(jobs)
            assert len(calls) <= 2
            for (who, final, _, _), job, one in zip(batch, jobs, found, strict=True):
                other = alone[who].commit(job.windows[0]) if final else alone[who].speculate(job.windows)
                if final:
                    assert replace(one, revised_from=None) == replace(other, revised_from=None)
                assert told([one]) == told([other])
                assert (one.sentiment, one.smooth) == pytest.approx((other.sentiment, other.smooth), abs=1e-5)


def test_a_slot_that_was_given_back_is_for_the_next_session(embedder: LastWordEmbedder) -> None:
    engine, _ = made()
    first = scorer(embedder, engine=engine)
    expected = [first.commit(each) for each in TALK]
    first.close()
    again = scorer(LastWordEmbedder(), engine=engine)
    assert [again.commit(each) for each in TALK] == expected
    assert len(engine._buckets) == 1
