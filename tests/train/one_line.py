"""What a user reads when something is wrong."""

from collections.abc import Callable

import pytest

from train.errors import TrainError


def error_of(call: Callable[[], object], kind: type[Exception] = TrainError) -> str:
    """The one line that it fails with."""
    with pytest.raises(kind) as raised:
        call()
    text = str(raised.value)
    assert text
    assert "\n" not in text
    return text
