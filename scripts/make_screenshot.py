"""Makes the README's picture anew: `python scripts/make_screenshot.py`.

Plays the bundled demo through the real session and draws the console as it stands after the second utterance.
"""

import asyncio
import io
import re
from pathlib import Path

from rich.console import Console

from stream.channel import Channel
from stream.clock import PacedClock
from stream.config import Config
from stream.engine import resolve_device
from stream.live import open_source
from stream.messages import Score
from stream.parts import load
from stream.session import Session
from stream.sinks.console import ConsoleDisplay

OUTPUT = Path(__file__).parent.parent / "docs" / "console.svg"
UNTIL_NS = 11_500_000_000  # the second utterance is just over


class Photographer:
    """Takes scores until the moment of the picture, then leaves, which ends the session."""

    def __init__(self, display: ConsoleDisplay) -> None:
        """Show them to `display`."""
        self._display = display

    async def run(self, scores: Channel[Score]) -> None:
        """Take scores up to the moment."""
        async for score in scores:
            self._display.take(score)
            if score.kind == "provisional" and score.t_end_ns >= UNTIL_NS:
                return


async def main() -> None:
    """Write the picture."""
    config, source = Config(), open_source("demo")
    parts = load(config, source, resolve_device("cpu"))
    display = ConsoleDisplay(Console(), parts.info)
    await Session(source, parts, PacedClock(), [Photographer(display)], hop_ns=config.windows.hop_ns).run()
    console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(display.render())
    svg = console.export_svg(title="python -m stream.live --source demo")
    OUTPUT.write_text(re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL))  # no fonts from elsewhere
    parts.close()
    source.close()


if __name__ == "__main__":
    asyncio.run(main())
