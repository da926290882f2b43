from collections.abc import Iterator

import pytest
import torch

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_GPU])])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield request.param
