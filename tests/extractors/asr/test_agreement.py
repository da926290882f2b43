"""LocalAgreement over an engine that knows the truth, but errs as real ones do: near the end of the sound, and in times."""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.asr.agreement import FORGET_NS, PROMPT_CHARACTERS, LocalAgreement
from extractors.asr.recogniser import MAX_STRETCH_NS, Recognition, Word
from extractors.sound import SAMPLE_NS
from extractors.vad import CHUNK, VoiceActivity, VoiceChunk

MS = 1_000_000
SECOND = 1_000_000_000
CHUNK_NS = CHUNK * SAMPLE_NS
EDGE_NS = 400 * MS  # before the end of the sound, within which no word is right
START_NS = 3600 * SECOND


class Oracle(LocalAgreement):
    """Says the true words of its buffer with times that jitter; rubbish at its end, and the rest of a word that was cut."""

    name = "oracle"

    def __init__(self, truth: Iterable[Word], *, jitter_ns: int = 0, max_stretch_ns: int = MAX_STRETCH_NS) -> None:
        super().__init__(max_stretch_ns=max_stretch_ns)
        self.truth = list(truth)
        self.jitter_ns = jitter_ns
        self.random = random.Random(0)
        self.decodes: list[tuple[int, int, str]] = []

    def close(self) -> None:
        pass

    def _decode(self, samples: np.ndarray, prompt: str) -> list[Word]:
        first_ns, last_ns = self._start_ns, self._start_ns + len(samples) * SAMPLE_NS
        self.decodes.append((first_ns, last_ns, prompt))
        words = []
        for word in self.truth:
            if min(word.end_ns, last_ns) - max(word.start_ns, first_ns) < (word.end_ns - word.start_ns) // 3:
                continue
            text = word.text if word.end_ns <= last_ns - EDGE_NS else f"rubbish{self.random.random()}"
            edges = sorted(edge + self.random.randint(-self.jitter_ns, self.jitter_ns) for edge in (word.start_ns, word.end_ns))
            start_ns, end_ns = (min(max(edge, first_ns), last_ns) - first_ns for edge in edges)
            words.append(Word(text, start_ns, end_ns, 0.5))
        return words


def said(*words: tuple[str, int, int]) -> list[Word]:
    """Words by their times in milliseconds."""
    return [Word(text, START_NS + start * MS, START_NS + end * MS) for text, start, end in words]


def evenly(texts: Iterable[str], each_ms: int = 400, from_ms: int = 0) -> list[Word]:
    return said(*((text, from_ms + index * each_ms, from_ms + (index + 1) * each_ms) for index, text in enumerate(texts)))


def chunks(until_ms: int, *stretches: tuple[int, int]) -> list[VoiceChunk]:
    """Chunks of sound from zero, speech within the stretches (milliseconds)."""
    made = []
    for t_ns in range(START_NS, START_NS + until_ms * MS, CHUNK_NS):
        speech = any(START_NS + start * MS <= t_ns < START_NS + end * MS for start, end in stretches)
        made.append(VoiceChunk(t_ns, np.zeros(CHUNK, np.int16), speech, speech))
    return made


def run(recogniser: LocalAgreement, given: Iterable[VoiceChunk], *, behind: Iterable[bool] = ()) -> list[Recognition]:
    """What is known after each chunk and at the end; the promises of `Recognition` are held to."""
    behind = iter(behind)
    known = []
    promised = 0
    for chunk in given:
        known.append(recogniser.push(chunk, behind=next(behind, False)))
    known.append(recogniser.finish())
    for part in known:
        ends = [promised]
        for word in part.final:
            assert ends[-1] <= word.start_ns < word.end_ns
            ends.append(word.end_ns)
        assert part.watermark_ns >= max(ends)
        promised = part.watermark_ns
        assert all(promised <= word.start_ns < word.end_ns for word in part.provisional)
    return known


def texts(known: Iterable[Recognition]) -> list[str]:
    return [word.text for part in known for word in part.final]


SENTENCE = "ask not what your country can do for you.".split()


def test_a_word_is_final_when_two_hypotheses_agree():
    recogniser = Oracle(evenly(SENTENCE))
    known = run(recogniser, chunks(6000, (0, 5000)))
    seen = [(" ".join(w.text for w in part.final), part.provisional, part.watermark_ns - START_NS) for part in known]
    # Looks are due after each second of sound, with the chunk that completes it: 1.024 s, 2.048 s and so on.
    assert [index for index, (final, *_) in enumerate(seen) if final] == [63, 95, 127, 157]
    assert [final for final, *_ in seen if final] == ["ask", "not what your", "country can", "do for you."]
    first, *rubbish = (word.text for word in seen[31][1])
    assert first == "ask"
    assert len(rubbish) == 2  # they end near the end of the sound
    assert [word.text for word in seen[63][1]][:3] == ["not", "what", "your"]
    assert seen[62][2] == 0
    assert seen[63][2] == 400 * MS  # where "ask" ends
    assert seen[-1][2] == 6016 * MS


def test_a_short_stretch_is_decoded_once_at_its_end():
    recogniser = Oracle(evenly(["yes", "no"]))
    known = run(recogniser, chunks(3000, (0, 900)))
    assert len(recogniser.decodes) == 1
    assert texts(known)[0] == "yes"


def test_an_end_that_is_decoded_already_is_not_decoded_again():
    recogniser = Oracle(evenly(["yes"]))
    run(recogniser, chunks(3000, (0, 1020)))
    assert len(recogniser.decodes) == 1


def test_hypotheses_are_compared_without_case_and_punctuation():
    recogniser = Oracle(evenly(["Well-made", "…", "yes"]))
    given = chunks(2100, (0, 2100))
    for chunk in given[:40]:
        recogniser.push(chunk)
    recogniser.truth = [replace(word, text=word.text.upper() + ",") for word in recogniser.truth]
    assert [word.text for part in map(recogniser.push, given[40:]) for word in part.final] == ["WELL-MADE,", "…,"][:1]


@st.composite
def speeches(draw: st.DrawFn, vocabulary: int | None) -> tuple[list[Word], list[tuple[int, int]]]:
    """Words of 0.25 to 0.6 s with small gaps, in stretches of any length; all different, or from a small vocabulary."""
    words: list[tuple[str, int, int]] = []
    stretches = []
    now = draw(st.integers(0, 500))
    for _ in range(draw(st.integers(1, 3))):
        first = now
        now += draw(st.integers(0, 200))
        for _ in range(draw(st.integers(1, 60))):
            text = f"w{len(words)}" if vocabulary is None else f"w{draw(st.integers(0, vocabulary - 1))}"
            text += draw(st.sampled_from(["", "", "", "", ".", ","]))
            end = now + draw(st.integers(250, 600))
            words.append((text, now, end))
            now = end + draw(st.sampled_from([0, 0, 20, 200]))
        now += EDGE_NS // MS + 100  # a stretch goes on for a while after its last word
        stretches.append((first, now))
        now += draw(st.integers(100, 12_000))
    return said(*words), stretches


def check_nothing_is_doubled_or_lost(
    speech: tuple[list[Word], list[tuple[int, int]]], jitter_ns: int, max_stretch_ns: int
) -> None:
    truth, stretches = speech
    recogniser = Oracle(truth, jitter_ns=jitter_ns, max_stretch_ns=max_stretch_ns)
    known = run(recogniser, chunks(stretches[-1][1] + 100, *stretches))
    assert texts(known) == [word.text for word in truth]
    for final, word in zip([word for part in known for word in part.final], truth, strict=True):
        assert abs(final.start_ns - word.start_ns) <= 2 * jitter_ns + SAMPLE_NS
        assert abs(final.end_ns - word.end_ns) <= 2 * jitter_ns + SAMPLE_NS
    assert all(last_ns - first_ns <= max_stretch_ns for first_ns, last_ns, _ in recogniser.decodes)
    assert recogniser.skipped == 0


@settings(max_examples=40, deadline=None)
@given(speeches(None), st.sampled_from([6, 10, 15]))
def test_no_word_is_doubled_or_lost_when_times_jitter(speech, max_s):
    check_nothing_is_doubled_or_lost(speech, 80 * MS, max_s * SECOND)


@settings(max_examples=40, deadline=None)
@given(speeches(3), st.sampled_from([6, 10, 15]))
def test_nor_when_words_are_said_again_and_again(speech, max_s):
    check_nothing_is_doubled_or_lost(speech, 25 * MS, max_s * SECOND)


@settings(max_examples=20, deadline=None)
@given(speeches(3), st.lists(st.booleans(), min_size=3000, max_size=3000))
def test_promises_hold_however_far_behind(speech, behind):
    truth, stretches = speech
    recogniser = Oracle(truth, jitter_ns=150 * MS)
    run(recogniser, chunks(stretches[-1][1] + 100, *stretches), behind=behind)
    assert all(last_ns - first_ns <= MAX_STRETCH_NS for first_ns, last_ns, _ in recogniser.decodes)


def test_a_word_that_changes_after_it_was_committed_is_not_said_again():
    recogniser = Oracle(evenly(SENTENCE))
    given = chunks(6000, (0, 5000))
    known = [recogniser.push(chunk) for chunk in given[:64]]
    assert texts(known) == ["ask"]
    recogniser.truth[0] = replace(recogniser.truth[0], text="task")
    known += run(recogniser, given[64:])
    assert texts(known) == SENTENCE


@pytest.mark.parametrize("moved_ms", [-200, 200])
def test_matching_words_tell_where_new_ones_start_when_all_times_move(moved_ms):
    recogniser = Oracle(evenly(SENTENCE, each_ms=300))
    given = chunks(6000, (0, 5000))
    known = [recogniser.push(chunk) for chunk in given[:80]]
    assert texts(known) == ["ask", "not"]
    moved_ns = moved_ms * MS
    recogniser.truth = [replace(w, start_ns=w.start_ns + moved_ns, end_ns=w.end_ns + moved_ns) for w in recogniser.truth]
    assert texts(known + run(recogniser, given[80:])) == SENTENCE


def test_a_due_decode_is_left_out_and_counted_when_more_sound_waits():
    recogniser = Oracle(evenly(SENTENCE))
    known = run(recogniser, chunks(6000, (0, 5000)), behind=[True] * 160)
    assert recogniser.skipped == 4
    assert len(recogniser.decodes) == 1  # the end of the stretch is never left out
    assert texts(known) == SENTENCE


def test_long_sound_is_let_go_at_the_end_of_a_sentence():
    recogniser = Oracle(evenly(SENTENCE * 5))  # sentences of 3.6 s
    known = run(recogniser, chunks(19_000, (0, 18_600)))
    assert texts(known) == SENTENCE * 5
    starts = sorted({(first_ns - START_NS) // MS for first_ns, *_ in recogniser.decodes})
    # Decodes are due every 1.024 s. That at 10.24 s has committed all that two agree on, up to 8.8 s.
    assert starts == [0, 7200, 14_400]


def test_sound_without_a_sentence_end_is_let_go_before_it_is_too_much():
    recogniser = Oracle(evenly(["and"] * 40))
    known = run(recogniser, chunks(17_500, (0, 17_000)))
    assert texts(known) == ["and"] * 40
    starts = sorted({(first_ns - START_NS) // MS for first_ns, *_ in recogniser.decodes})
    assert starts == [0, 12_800]  # of the decode at 14.336 s, what it shares with that at 13.312 s


def test_where_nothing_agrees_all_is_committed_and_a_new_buffer_starts():
    recogniser = Oracle(evenly(["and"] * 50), jitter_ns=0)
    run(recogniser, chunks(20_500, (0, 20_500)), behind=[True] * 1000)
    spans = [((first_ns - START_NS) // MS, (last_ns - START_NS) // MS) for first_ns, last_ns, _ in recogniser.decodes]
    assert spans == [(0, 14_976), (14_976, 20_512)]
    assert recogniser.skipped == 14 + 5


def test_the_prompt_is_the_committed_text_before_the_buffer():
    recogniser = Oracle(evenly(SENTENCE * 5) + evenly(["and", "so"], from_ms=20_000))
    run(recogniser, chunks(22_000, (0, 18_600), (19_900, 21_500)))
    sentence = " ".join(SENTENCE)
    prompts = {(first_ns - START_NS) // MS: prompt for first_ns, _, prompt in recogniser.decodes}
    assert prompts[0] == ""
    assert prompts[7200] == f"{sentence} {sentence}"
    assert prompts[14_400] == " ".join([sentence] * 4)
    whole = " ".join([sentence] * 5)
    (last,) = (prompt for start, prompt in prompts.items() if start > 19_000)
    assert len(last) <= PROMPT_CHARACTERS < len(whole)
    assert whole.endswith(" " + last)


@pytest.mark.parametrize(("pause_ns", "prompt"), [(FORGET_NS - SECOND, "yes"), (FORGET_NS + SECOND, "")])
def test_a_long_silence_makes_it_forget(pause_ns, prompt):
    again_ms = 400 + pause_ns // MS
    recogniser = Oracle(said(("yes", 0, 400), ("no", again_ms, again_ms + 400)))
    run(recogniser, chunks(again_ms + 1000, (0, 900), (again_ms, again_ms + 900)))
    assert [decode[2] for decode in recogniser.decodes] == ["", prompt]


class Witness(LocalAgreement):
    """Keeps what it is asked, and says words that depend on every bit of it."""

    name = "witness"

    def __init__(self) -> None:
        super().__init__(max_stretch_ns=5 * SECOND)

    def close(self) -> None:
        pass

    def _decode(self, samples: np.ndarray, prompt: str) -> list[Word]:
        digest = hashlib.sha256(samples.tobytes() + prompt.encode()).hexdigest()
        start_ns = len(samples) * SAMPLE_NS // 2
        return [Word("the", 0, start_ns), Word(digest[:6] + ".", start_ns, start_ns + 1)]


def test_words_do_not_depend_on_how_the_sound_is_cut_into_blocks(jfk):
    found = []
    for lengths in ([len(jfk)], [160] * 1100, random.Random(0).choices(range(1, 9000), k=100)):
        activity, recogniser = VoiceActivity(), Witness()
        blocks = np.split(jfk, [edge for edge in np.cumsum(lengths) if edge < len(jfk)])
        decided, t_ns = [], 0
        for block in blocks:
            decided += activity.push(t_ns, block)
            t_ns += len(block) * SAMPLE_NS
        found.append([word for part in run(recogniser, [*decided, *activity.close()]) for word in part.final])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 8
