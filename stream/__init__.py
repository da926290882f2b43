"""The live analyzer: sources, lanes, windows, engine, session and sinks. Start it with `python -m stream.live`."""

__version__ = "0.1.0"
