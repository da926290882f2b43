import asyncio
from dataclasses import replace

from rich.console import Console

from extractors.asr.recogniser import Word
from stream.channel import Channel
from stream.messages import Score, SessionInfo
from stream.sinks.console import ConsoleDisplay
from tests.stream.sinks.test_payload import score

INFO = SessionInfo(
    "cam0",
    "lab-1",
    "talk.mp4",
    True,
    "mmlatch@abc",
    False,
    "cpu",
    2.0,
    {"vision": "no camera [x]"},
    ("the model is untrained",),
)


def shown(*scores: Score) -> str:
    console = Console(width=100, record=True, force_terminal=False)
    display = ConsoleDisplay(console, INFO)
    for one in scores:
        display.take(one)
    console.print(display.render())
    return console.export_text()


def test_it_shows_score_words_lanes_latency_and_what_is_wrong() -> None:
    final = score(kind="final", smooth=-1.25, words=(Word("dreadful", 0, 1),), latency_ns=340_000_000, model_ns=4_000_000)
    text = shown(final)
    for part in ("talk.mp4", "scripted", "-1.25 negative", "dreadful", "340 ms", "mmlatch@abc on cpu", "untrained", "1 finals"):
        assert part in text
    assert "unavailable" in text
    assert "no camera [x]" in text  # a reason is shown as it is, not read as markup


def test_provisional_scores_are_marked_and_their_words_not_kept() -> None:
    guess = score(words=(Word("perhaps", 0, 1),))
    assert "provisional" in shown(guess)
    assert "perhaps" in shown(guess)
    assert "perhaps" not in shown(guess, score(kind="final", words=()))


def test_the_sparkline_covers_the_last_minute() -> None:
    finals = [
        score(kind="final", seq=k, t_start_ns=k * 250_000_000, t_end_ns=(k + 1) * 250_000_000, smooth=-3 if k < 400 else 3)
        for k in range(640)
    ]
    line = next(line for line in shown(*finals).splitlines() if "last minute" in line)
    assert line.count("█") == 60
    assert "▁" not in line


def test_before_the_first_window_it_says_so() -> None:
    assert "waiting" in shown()


def test_it_runs_on_an_output_that_is_no_terminal() -> None:
    async def scenario() -> str:
        console = Console(width=100, record=True, force_terminal=False)
        scores: Channel[Score] = Channel(8)
        await scores.put(replace(score(kind="final"), smooth=2.5))
        await scores.close()
        await ConsoleDisplay(console, INFO).run(scores)
        return console.export_text()

    assert "+2.50 positive" in asyncio.run(scenario())
