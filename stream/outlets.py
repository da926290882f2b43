"""Where the scores of a process go: opens the sinks that are asked for, and closes them when the sessions have ended.

Only what `check` needs is imported at the top, so that a mistake is told at once.
"""

import contextlib
import importlib.util
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stream.config import Config
from stream.errors import UsageError
from stream.messages import SessionInfo
from stream.sinks.sink import Sink

if TYPE_CHECKING:
    from stream.session import Session
    from stream.sinks.statistics import Statistics

log = logging.getLogger(__name__)

Screen = Literal["console", "jsonl", "none"]
EMBEDDED = "embedded"  # in place of a broker's address


@dataclass
class Outlets:
    """The sinks of all sessions of a process.

    Attributes:
        sinks: To be given to each session.
        attach: Each to be called with each session: who tells of it, shows its pictures or asks it for something.
    """

    sinks: list[Sink] = field(default_factory=list)
    attach: "list[Callable[[Session], None]]" = field(default_factory=list)


def check(screen: Screen, config: Config) -> None:
    """See whether the sinks can be opened, as far as that can be told without opening them.

    Raises:
        UsageError: They cannot.
    """
    address = config.mqtt.broker
    if screen == "none" and not (address or config.dashboard.address or config.record.file):
        raise UsageError("--format none: nobody would see anything; add --mqtt BROKER, --dashboard or --record FILE")
    if config.dashboard.address:
        _need("--dashboard", "dashboard", "starlette", "uvicorn", "websockets", "plotly")
        from stream.dashboard.access import address as page_address

        page_address(config.dashboard)
    if not address and (config.mqtt.required or config.mqtt.home_assistant):
        raise UsageError("--mqtt-required and --home-assistant need a broker; add --mqtt BROKER")
    if address:
        _need(f"--mqtt {address}", "mqtt", "aiomqtt", *(["amqtt"] if address == EMBEDDED else []))
    if address and address != EMBEDDED:
        from stream.broker import broker

        broker(config.mqtt, address)


@contextlib.asynccontextmanager
async def outlets(screen: Screen, config: Config, sessions: Sequence[SessionInfo]) -> AsyncIterator[Outlets]:
    """The sinks, open.

    Raises:
        UsageError: One that is required cannot be opened.
    """
    async with contextlib.AsyncExitStack() as closing:
        opened = Outlets()
        if shown := _screen(screen):
            opened.sinks.append(shown)
        if config.mqtt.broker or config.dashboard.address:
            from stream.sinks.statistics import Statistics

            statistics = Statistics()
            opened.sinks.append(statistics)
            opened.attach.append(statistics.watch)
            if config.dashboard.address:
                await _open_page(config, opened, statistics, closing)
            if config.mqtt.broker:
                await _open_mqtt(config, opened, statistics, closing, sessions)
        yield opened


def _need(what: str, extra: str, *modules: str) -> None:
    """Raise UsageError if what an option needs is not installed."""
    if missing := [module for module in modules if not importlib.util.find_spec(module)]:
        raise UsageError(f"{what}: {' and '.join(missing)} is not installed; run: pip install 'mmlatch-live[{extra}]'")


def _screen(screen: Screen) -> Sink | None:
    match screen:
        case "jsonl":
            from stream.sinks.jsonl import JsonLines

            return JsonLines(sys.stdout)
        case "console":
            from rich.console import Console

            from stream.sinks.console import ConsoleDisplay

            return ConsoleDisplay(Console())
        case "none":
            return None


async def _open_page(config: Config, opened: Outlets, statistics: "Statistics", closing: contextlib.AsyncExitStack) -> None:
    from stream.dashboard.access import address
    from stream.dashboard.sink import Dashboard

    page = Dashboard(address(config.dashboard), statistics, pictures=config.dashboard.picture)
    await closing.enter_async_context(page)
    log.warning("the page is at %s", page.address.url)
    opened.sinks.append(page)
    opened.attach.append(page.show)


async def _open_mqtt(
    config: Config,
    opened: Outlets,
    statistics: "Statistics",
    closing: contextlib.AsyncExitStack,
    sessions: Sequence[SessionInfo],
) -> None:
    from stream.broker import broker
    from stream.commands import Commands
    from stream.node import about
    from stream.sinks.mqtt import Mqtt

    given = config.mqtt.broker
    assert given
    if given == EMBEDDED:
        from stream.embedded import embedded_broker

        target = await closing.enter_async_context(embedded_broker())
    else:
        target = broker(config.mqtt, given)
    commands = Commands() if config.mqtt.commands else None
    sink = Mqtt(
        target,
        config.mqtt,
        config.node,
        about=about(config, sessions),
        statistics=statistics,
        obey=commands.obey if commands else None,
    )
    await closing.enter_async_context(sink)
    if config.mqtt.required and (failure := await sink.link.first_failure()):
        raise UsageError(failure)
    opened.sinks.append(sink)
    if commands:
        opened.attach.append(commands.add)
