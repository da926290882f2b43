import asyncio
import io
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from extractors.asr.recogniser import Word
from stream.channel import Channel
from stream.messages import Event, Latency, Output, SessionInfo
from stream.sinks import console as module
from stream.sinks.console import ConsoleDisplay, SessionView
from tests.stream.sinks.test_payload import UTTERANCE, score

SECOND = 1_000_000_000
INFO = SessionInfo(
    "cam0",
    "lab-1",
    "talk.mp4",
    False,
    True,
    "mmlatch@abc",
    (),
    "cpu",
    2.0,
    {"vision": "no camera [x]"},
    ("the model is untrained",),
)
FINAL = score(kind="final", smooth=2.5)


def shown(*outputs: Output) -> str:
    console = Console(width=100, record=True, force_terminal=False, file=io.StringIO())
    view = SessionView(INFO)
    for output in outputs:
        view.take(output)
    console.print(view.render())
    return console.export_text()


def outputs_of(*outputs: Output) -> Channel[Output]:
    made: Channel[Output] = Channel(100, lambda items: None)
    for output in outputs:
        made.offer(output)
    return made


def test_it_shows_score_words_lanes_latency_and_what_is_wrong() -> None:
    final = score(
        kind="final",
        smooth=-1.25,
        words=(Word("dreadful", 0, 1),),
        latency=Latency(340_000_000, 200_000_000, 136_000_000, 4_000_000),
        text_lag_ns=2_300_000_000,
        dropped={"text": 0, "audio": 0, "vision": 31},
    )
    text = shown(final)
    for part in (
        "cam0",
        "talk.mp4",
        "scripted",
        "-1.25 ± 0.8 negative",
        "dreadful",
        "mmlatch@abc on cpu",
        "untrained",
        "1 finals",
    ):
        assert part in text
    for part in ("final latency 340 ms, of it model 4.0", "words 2.3 s behind", "31 vision dropped"):
        assert part in text
    assert "audio dropped" not in text
    assert "unavailable" in text
    assert "no camera [x]" in text  # a reason is shown as it is, not read as markup


def test_it_shows_what_became_of_a_device_last_and_no_other_events() -> None:
    lost = Event(12 * SECOND, "lost", "audio", "the microphone [USB] is gone")
    back = Event(15 * SECOND, "recovered", "audio", "the microphone is back")
    dropped = Event(16 * SECOND, "dropped", "vision", "too many", 3)
    assert "12 s  the microphone [USB] is gone" in shown(FINAL, lost)
    text = shown(lost, FINAL, back, dropped, UTTERANCE)
    assert "15 s  the microphone is back" in text
    assert "is gone" not in text
    assert "too many" not in text


def test_without_a_present_nothing_is_said_of_latency() -> None:
    text = shown(FINAL)
    for part in ("latency", "behind", "dropped"):
        assert part not in text


def test_provisional_scores_are_marked_and_their_words_not_kept() -> None:
    guess = score(words=(Word("perhaps", 0, 1),))
    assert "provisional" in shown(guess)
    assert "perhaps" in shown(guess)
    assert "perhaps" not in shown(guess, score(kind="final", words=()))


def test_a_lane_that_was_lost_says_why() -> None:
    lanes = {**FINAL.lanes, "audio": replace(FINAL.lanes["audio"], status="unavailable", reason="the device is gone")}
    assert "the device is gone" in shown(replace(FINAL, lanes=lanes))


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


# --- while sessions run


def run(display: ConsoleDisplay, *sessions: tuple[SessionInfo, Channel[Output]]) -> None:
    async def scenario() -> None:
        for _, outputs in sessions:
            outputs.close()
        await asyncio.wait_for(asyncio.gather(*(display.run(*session) for session in sessions)), 20)

    asyncio.run(scenario())


def test_it_runs_on_an_output_that_is_no_terminal() -> None:
    out = io.StringIO()
    run(ConsoleDisplay(Console(width=100, force_terminal=False, file=out)), (INFO, outputs_of(FINAL)))
    assert out.getvalue().count("+2.50 ± 0.8 positive") == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_sessions_stand_one_below_the_other_to_the_end(terminal: bool) -> None:
    out = io.StringIO()
    display = ConsoleDisplay(Console(width=100, height=60, force_terminal=terminal, file=out))
    other = replace(INFO, session="hall", source="mic")
    run(display, (INFO, outputs_of(FINAL)), (other, outputs_of(score(kind="final", smooth=-2.0), UTTERANCE)))
    last = out.getvalue().rpartition("cam0: talk.mp4")
    assert "+2.50 ± 0.8 positive" in last[2]
    assert "hall: mic" in last[2]
    assert "-2.00 ± 0.8 negative" in last[2]
    assert ("\x1b[?25l" in out.getvalue()) == ("\x1b[?25h" in out.getvalue()) == terminal  # the cursor comes back
    if not terminal:
        assert out.getvalue().count("hall: mic") == 1


def test_a_session_that_is_over_stays_while_others_go_on() -> None:
    async def scenario() -> None:
        display = ConsoleDisplay(Console(width=100, height=60, force_terminal=True, file=out))
        short, long = outputs_of(FINAL), outputs_of()
        other = asyncio.create_task(display.run(replace(INFO, session="hall"), long))
        first = asyncio.create_task(display.run(INFO, short))
        while "+2.50" not in out.getvalue():
            await asyncio.sleep(0.002)
        short.close()
        await asyncio.wait_for(first, 5)
        assert not other.done()
        long.offer(replace(FINAL, smooth=-2.0))
        long.close()
        await asyncio.wait_for(other, 5)

    out = io.StringIO()
    asyncio.run(scenario())
    last = out.getvalue().rpartition("hall: talk.mp4")[2]
    assert "-2.00 ± 0.8 negative" in last
    assert "+2.50 ± 0.8 positive" in last


def test_it_redraws_in_place_as_scores_come_but_not_for_each() -> None:
    async def scenario() -> None:
        outputs = outputs_of()
        running = asyncio.create_task(ConsoleDisplay(Console(width=100, force_terminal=True, file=out)).run(INFO, outputs))
        for index in range(100):
            outputs.offer(replace(FINAL, smooth=index / 100))
            await asyncio.sleep(0.002)
        assert "waiting" not in out.getvalue()
        assert 1 <= out.getvalue().count("talk.mp4") < 30
        outputs.close()
        await asyncio.wait_for(running, 5)
        assert "+0.99 ± 0.8 positive" in out.getvalue()
        assert "100 finals" in out.getvalue()

    out = io.StringIO()
    asyncio.run(scenario())


class Stuck(io.StringIO):
    """A terminal that takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.released.wait(30)
        return super().write(text)


def test_a_terminal_that_is_stuck_holds_up_nobody_else() -> None:
    async def scenario() -> None:
        outputs = outputs_of(FINAL)
        running = asyncio.create_task(ConsoleDisplay(Console(width=100, force_terminal=True, file=out)).run(INFO, outputs))
        while not out.reached.is_set():
            await asyncio.sleep(0.002)
        for _ in range(20):  # the loop goes on
            await asyncio.sleep(0.002)
        assert not running.done()
        running.cancel()
        await asyncio.wait({running}, timeout=5)
        assert running.done()

    out = Stuck()
    asyncio.run(asyncio.wait_for(scenario(), 30))
    out.released.set()


class Failing(io.StringIO):
    """A terminal that fails so many times."""

    times = 0

    def write(self, text: str) -> int:
        if self.times:
            self.times -= 1
            raise BlockingIOError("the terminal is full")
        return super().write(text)


def test_a_session_that_is_shown_anew_after_a_failure_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        display, outputs = ConsoleDisplay(Console(width=100, height=60, force_terminal=True, file=out)), outputs_of(FINAL)
        running = asyncio.create_task(display.run(INFO, outputs))
        while "+2.50" not in out.getvalue():
            await asyncio.sleep(0.002)
        out.times = 2  # to draw, and to leave
        outputs.offer(FINAL)
        with pytest.raises(BlockingIOError, match="full"):
            await asyncio.wait_for(running, 5)
        out.truncate(0)
        outputs.offer(replace(FINAL, smooth=1.25))
        outputs.close()
        await asyncio.wait_for(display.run(INFO, outputs), 5)

    monkeypatch.setattr(module, "_REDRAW_S", 0.0)
    out = Failing()
    asyncio.run(scenario())
    assert "+1.25" in out.getvalue()
    assert out.getvalue().rpartition("\x1b[2K")[2].count("cam0: talk.mp4") == 1
