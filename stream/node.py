"""What a node is: versions, configuration, model; what MQTT's `info` topic and the page tell of it."""

import hashlib
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stream import __version__
from stream.config import Config
from stream.messages import SessionInfo
from stream.windows import contracts


def about(config: Config, sessions: Sequence[SessionInfo]) -> dict[str, Any]:
    """All that holds for the life of the process, at least one session of which is about to run."""
    first = sessions[0]
    return {
        "version": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        # Without what says where to publish: the same analysis has the same digest.
        "config": hashlib.sha256(config.model_dump_json(exclude={"mqtt"}).encode()).hexdigest()[:16],
        "model": first.model,
        "trained_on": list(first.trained_on),
        "contracts": contracts(config.windows.hop_ns),
        "device": first.device,
        "started_at_unix_s": round(time.time(), 3),
        "sessions": {each.session: {"source": each.source, "live": each.live, "scripted": each.scripted} for each in sessions},
    }


def _commit() -> str | None:
    """Of the checkout that this runs from, if it is one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
