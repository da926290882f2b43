"""Where a score's time went: notes when each part passed the end of a window."""

from collections import deque

from stream.messages import PARTS, Latency, Part


class Arrivals:
    """Remembers for each part when its watermark came to where; moments are wall time since the session began.

    Example:
        arrivals.note("audio", watermark_ns=500_000_000, now_ns=530_000_000)
        latency = arrivals.split(500_000_000, due_ns=500_000_000, asked_ns=531_000_000, now_ns=533_000_000)
    """

    def __init__(self) -> None:
        """Nothing has arrived."""
        self._steps: dict[Part, deque[tuple[int, int]]] = {part: deque() for part in PARTS}  # (watermark, moment)

    def note(self, part: Part, watermark_ns: int, now_ns: int) -> None:
        """A part's watermark has come to `watermark_ns` now."""
        steps = self._steps[part]
        if not steps or watermark_ns > steps[-1][0]:
            steps.append((watermark_ns, now_ns))

    def split(self, t_end_ns: int, *, due_ns: int, asked_ns: int, now_ns: int) -> Latency:
        """Of a score that is out now.

        Args:
            t_end_ns: The end of its window, in session time.
            due_ns: When that was.
            asked_ns: When the score was asked for.
            now_ns: The present.
        """
        passed = [self._passed(part, t_end_ns) for part in PARTS if part != "text"]
        # What had not come by then was not waited for.
        ready_ns = min(max(due_ns, asked_ns), max([due_ns, *(moment for moment in passed if moment is not None)]))
        begun_ns = max(ready_ns, asked_ns)
        return Latency(now_ns - due_ns, ready_ns - due_ns, begun_ns - ready_ns, now_ns - begun_ns)

    def forget(self, t_ns: int) -> None:
        """Nobody will ask for windows that end before `t_ns`."""
        for steps in self._steps.values():
            while len(steps) > 1 and steps[0][0] < t_ns:
                steps.popleft()

    def _passed(self, part: Part, t_ns: int) -> int | None:
        return next((moment for watermark_ns, moment in self._steps[part] if watermark_ns >= t_ns), None)
