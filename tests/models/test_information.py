"""The bounds stay on their sides of the mutual information of correlated normal variables, which is known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from models.information import Conditional, InfoNCE, discrepancy, normal_entropy

COLUMNS = 3


def pairs(correlation: float, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    x, noise = (torch.randn(count, COLUMNS, generator=random) for _ in range(2))
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def known(correlation: float) -> float:
    return -0.5 * COLUMNS * math.log(1 - correlation**2)


def fitted(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], correlation: float) -> None:
    random = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(400):
        optimiser.zero_grad()
        loss(*pairs(correlation, 128, random)).backward()
        optimiser.step()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_info_nce_stays_below_and_comes_near(correlation: float) -> None:
    critic = InfoNCE(COLUMNS, COLUMNS, hidden=32)
    fitted(critic, lambda x, y: -critic.lower_bound(x, y), correlation)
    with torch.no_grad():
        found = critic.lower_bound(*pairs(correlation, 1000, torch.Generator().manual_seed(2))).item()
    assert found <= known(correlation) + 0.05
    assert found >= 0.75 * known(correlation) - 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_barber_and_agakov_s_stays_below_and_club_above(correlation: float) -> None:
    q = Conditional(COLUMNS, COLUMNS, hidden=32)
    fitted(q, lambda x, y: -q.log_likelihood(x, y).mean(), correlation)
    with torch.no_grad():
        x, y = pairs(correlation, 2000, torch.Generator().manual_seed(2))
        low, high = q.lower_bound(x, y).item(), q.upper_bound(x, y).item()
    assert low <= known(correlation) + 0.05
    assert low >= 0.75 * known(correlation) - 0.05
    assert high >= known(correlation) - 0.05


def test_a_bound_before_it_is_fitted_is_no_more_than_it_should_be() -> None:
    x, y = pairs(0.9, 500, torch.Generator().manual_seed(2))
    assert InfoNCE(COLUMNS, COLUMNS, hidden=8).lower_bound(x, y) < known(0.9)
    assert Conditional(COLUMNS, COLUMNS, hidden=8).lower_bound(x, y) < known(0.9)


def test_maximising_and_minimising_move_what_is_told() -> None:
    """An encoder that may pass on x or noise passes on x where that is rewarded, and noise where it is punished."""
    random = torch.Generator().manual_seed(3)
    share = {}
    for sign in (1, -1):
        gate = nn.Parameter(torch.zeros(()))
        q = Conditional(COLUMNS, COLUMNS, hidden=16)
        fit, move = torch.optim.Adam(q.parameters(), 1e-2), torch.optim.Adam([gate], 5e-2)
        for _ in range(200):
            x, noise = (torch.randn(128, COLUMNS, generator=random) for _ in range(2))
            y = gate.sigmoid() * x + (1 - gate.sigmoid()) * noise
            fit.zero_grad()
            (-q.log_likelihood(x, y.detach()).mean()).backward()
            fit.step()
            move.zero_grad()
            (-q.lower_bound(x, y) if sign > 0 else q.upper_bound(x, y)).backward()
            move.step()
        share[sign] = gate.sigmoid().item()
    assert share[1] > 0.7
    assert share[-1] < 0.3


def test_the_entropy_of_a_normal_distribution() -> None:
    y = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0])
    assert_close(normal_entropy(y).item(), math.log(2 * math.pi * math.e) + math.log(3), atol=0.02, rtol=0)


def test_the_discrepancy_is_near_nothing_for_the_same_distribution_and_grows_with_the_shift() -> None:
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, COLUMNS, generator=random) for _ in range(2))
    found = [discrepancy(x, y + shift).item() for shift in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert found[0] < 0.005
    assert found == sorted(found)
    assert found[-1] > 0.5
    assert discrepancy(x, x).item() == pytest.approx(0, abs=1e-6)


def test_the_kernel_is_that_of_mfm_s_code() -> None:
    a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    # The mean of 1 and 9 is 5; divided by 2 columns again.
    assert_close(discrepancy(a, b), torch.tensor(2 - 2 * math.exp(-2.5)))
