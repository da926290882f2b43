"""How much two things tell of each other: bounds of mutual information that can be trained, and a distance of distributions.

All in nats, over batches of N pairs (x, y), float (N, X) and (N, Y). Lower bounds: InfoNCE (A. van den Oord, Y. Li, O. Vinyals,
arXiv 1807.03748) and Barber and Agakov's (NIPS 2003), as MMIM uses them (W. Han, H. Chen, S. Poria, EMNLP 2021, arXiv
2109.00412). Upper bound: CLUB (P. Cheng et al., ICML 2020, arXiv 2006.12013). Distance: maximum mean discrepancy, with the
kernel of MFM's code (Y.-H. H. Tsai et al., ICLR 2019, arXiv 1806.06176).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class InfoNCE(nn.Module):
    """A critic that tells pairs from strangers; the better it does, the higher the bound, at most log N.

    Example:
        critic = InfoNCE(8, 4, hidden=32)
        (-critic.lower_bound(x, y)).backward()  # makes the critic better, and x and y tell more of each other
    """

    def __init__(self, x: int, y: int, *, hidden: int) -> None:
        super().__init__()
        self.least = 2  # pairs, to tell anything
        self.of_x, self.of_y = nn.Linear(x, hidden), nn.Linear(y, hidden)
        self.judge = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def lower_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """A scalar: the mean log share of its own among all N candidates, and log N."""
        # The first layer of a network over [x, y], taken apart, so that N x N pairs cost N + N products.
        scores = self.judge(self.of_x(x)[:, None] + self.of_y(y)[None])[..., 0]  # (N, N)
        return (scores.diagonal() - scores.logsumexp(1)).mean() + math.log(len(x))


class Conditional(nn.Module):
    """q(y|x), a normal distribution whose mean and variance a network reads from x; fitted by `log_likelihood`.

    Example:
        q = Conditional(8, 4, hidden=32)
        (-q.log_likelihood(x.detach(), y.detach()).mean()).backward()  # fits q, and moves neither x nor y
        (-q.lower_bound(x, y)).backward()  # x and y tell more of each other
        q.upper_bound(x, y).backward()  # or less
    """

    def __init__(self, x: int, y: int, *, hidden: int) -> None:
        super().__init__()
        self.least = y + 1  # pairs, for a covariance
        self.mean = nn.Sequential(nn.Linear(x, hidden), nn.ReLU(), nn.Linear(hidden, y))
        self.log_variance = nn.Sequential(nn.Linear(x, hidden), nn.ReLU(), nn.Linear(hidden, y))

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Of each pair, (N,)."""
        mean, log_variance = self._read(x)
        return _log_normal(y, mean, log_variance).sum(-1)

    def lower_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """Barber and Agakov's, a scalar: the entropy of y and the mean log likelihood of y given x.

        The entropy is that of a normal distribution with y's covariance, which is the most it can be: where y is far from
        normal, the bound is too high by as much.
        """
        return normal_entropy(y) + self.log_likelihood(x, y).mean()

    def upper_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """CLUB, a scalar: how much likelier a y is given its own x than given any. It holds if q is fitted."""
        mean, log_variance = self._read(x)
        own = _log_normal(y, mean, log_variance).sum(-1)
        any_y = _log_normal(y[None], mean[:, None], log_variance[:, None]).sum(-1)  # (N of x, N of y)
        return own.mean() - any_y.mean()

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(x), self.log_variance(x).clamp(-8, 8)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Nothing that is computed inside moves the module's weights."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)


def _log_normal(y: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -0.5 * ((y - mean) ** 2 * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def normal_entropy(y: Tensor) -> Tensor:
    """The entropy of a normal distribution with the covariance of the rows (N, Y), N above Y, a scalar."""
    centred = y - y.mean(0)
    covariance = centred.mT @ centred / (len(y) - 1) + 1e-6 * torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    return 0.5 * (y.shape[1] * math.log(2 * math.pi * math.e) + torch.linalg.slogdet(covariance).logabsdet)


def discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The maximum mean discrepancy of two samples (N, D) and (M, D), a scalar from 0 (the same) to 2.

    The kernel is exp(-|a - b|² / D²), as in MFM's code, which takes the mean over the columns and divides by their number
    again. Each point is counted with itself, so samples of the same distribution have a little more than 0.
    """
    return _likeness(x, x).mean() + _likeness(y, y).mean() - 2 * _likeness(x, y).mean()


def _likeness(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-((x[:, None] - y[None]) ** 2).mean(-1) / x.shape[1])  # (N, M)
