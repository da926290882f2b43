"""A reconstruction of MMMIE, causal: what its abstract says, filled in by us.

J. Zheng, S. Zhang, X. Wang, Z. Zeng, "Multimodal Representations Learning Based on Mutual Information Maximization and
Minimization and Identity Embedding for Multimodal Sentiment Analysis", arXiv 2201.03969. Only the abstract was to be had, and
no code: the information that modalities share is maximised between every two, the information that features keep of their
inputs is minimised, and an *identity embedding* tells the network downstream what it looks at. Encoders, estimators
(`models.information`), fusion and all numbers are ours, so no figure of this model is a figure of that paper.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from models.causal import (
    FLAGS,
    MODALITIES,
    CausalConfig,
    CausalModel,
    Prediction,
    check_choice,
    check_transformer,
    flags_of,
    known,
    lstm_state,
)
from models.information import Conditional, InfoNCE, frozen
from models.layers import CausalLSTM, CausalTransformerLayer, Context, Projection, normalised, positions
from models.state import State


@dataclass(frozen=True)
class CausalMMMIEConfig(CausalConfig):
    """The model's shape; see `CausalConfig`.

    Attributes:
        hidden: The common width, a multiple of `heads`.
        dropout: After the encoders and before the head; half of it in the context encoder.
        heads: Of each attention of the context encoder.
        layers: Of the context encoder.
        identity: What is added to a feature before the context encoder: a vector of its modality (`modality`), or that and
            its place in the utterance (`place`), as sines. Who speaks would be a third reading; it tells nothing of speakers
            that were not trained on, as live ones are, so there is no such choice.
    """

    heads: int = 4
    layers: int = 2
    identity: Literal["modality", "place"] = "place"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_transformer(self.hidden, self.heads, self.layers)
        check_choice(self, "identity")


class CausalMMMIE(CausalModel):
    """LSTMs make features of each lane; a transformer over the features of all lanes puts them into context."""

    model_type: ClassVar[str] = "mmmie-causal"
    config_class: ClassVar[type] = CausalMMMIEConfig
    config: CausalMMMIEConfig

    def __init__(self, config: CausalMMMIEConfig) -> None:
        super().__init__(config)
        p, drop = config.hidden, config.dropout / 2
        self.projections = nn.ModuleList(Projection(size, p) for size in self.sizes)
        self.encoders = CausalLSTM(3, p + FLAGS, p)
        self.identities = nn.Parameter(torch.randn(3, 1, 1, p) * p**-0.5)
        self.layers = nn.ModuleList(
            CausalTransformerLayer(1, p, heads=config.heads, dropout=drop) for _ in range(config.layers)
        )
        self._make_head(6 * p)

    def recurrent(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.recurrent`."""
        return lstm_state("own", 3, self.config.hidden) | {"mean": (1, 3 * self.config.hidden)}

    def histories(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.histories`."""
        return {f"context.{i}": (3, self.config.hidden) for i in range(self.config.layers)}

    def forward(self, windows: Mapping[str, Tensor], state: State) -> tuple[Prediction, State]:
        """See `CausalModel.forward`."""
        prediction, state, _ = self.analyse(windows, state)
        return prediction, state

    def analyse(self, windows: Mapping[str, Tensor], state: State) -> tuple[Prediction, State, Tensor]:
        """As `forward`, and the lanes' features, (3, B, T, P), which the bounds on information are about."""
        context = Context(state, self._check(windows, state), max_steps=self.config.max_steps)
        flags = flags_of(windows)
        lanes = [project(lane) for project, lane in zip(self.projections, self._features(windows), strict=True)]
        features, _ = context.run("own", self.encoders, torch.cat([torch.stack(lanes), flags], -1))  # (3, B, T, P)
        x = self._drop(features) + self.identities
        if self.config.identity == "place":
            x = x + positions(context.count, self.config.hidden)
        bias = context.bias.repeat(1, 3, 3)  # each lane's steps look at all lanes', (B, 3 T, 3 capacity)
        for number, layer in enumerate(self.layers):
            memory = _in_a_row(context.append(f"context.{number}", normalised(x)))
            x = _by_lane(layer(_in_a_row(x), memory, bias))
        read = torch.cat(normalised(x).unbind(), -1)  # (B, T, 3 P)
        prediction = self._predict(torch.cat([context.mean("mean", read), read], -1), known(flags))
        return prediction, context.after(), features


def _in_a_row(x: Tensor) -> Tensor:
    """The steps of all lanes as one sequence: (3, B, T, P) to (1, B, 3 T, P)."""
    return torch.cat(x.unbind(), 1)[None]


def _by_lane(x: Tensor) -> Tensor:
    """Back again."""
    return torch.stack(x[0].chunk(3, 1))


class Information(nn.Module):
    """The estimators, which are fitted beside the model and are no part of it.

    Attributes:
        least: So many sequences that have both modalities of a pair must be in a batch for what they share to be estimated.

    Example:
        information = Information(model.config, shared=0.1, kept=0.01, bound="infonce")
        _, _, features = model.analyse(windows, state)
        terms = information(inputs, features, there)  # to be added to the loss; its gradients fit the estimators too
    """

    def __init__(self, config: CausalConfig, *, shared: float, kept: float, bound: Literal["infonce", "ba"]) -> None:
        """Make estimators for a model's features.

        Args:
            config: The model's.
            shared: What the information counts that two modalities' features share, which is to be large.
            kept: What the information counts that features keep of their input, which is to be small.
            bound: How the shared information is bounded from below: by `infonce` or by Barber and Agakov (`ba`).
        """
        super().__init__()
        self.weight_shared, self.weight_kept, p = shared, kept, config.hidden
        self.pairs = list(combinations(range(3), 2))
        make = InfoNCE if bound == "infonce" else Conditional
        self.shared = nn.ModuleList(make(p, p, hidden=p) for _ in self.pairs)
        self.kept = nn.ModuleList(Conditional(getattr(config, m), p, hidden=p) for m in MODALITIES)
        self.least = max(each.least for each in cast(Iterable[InfoNCE | Conditional], self.shared))

    def forward(self, inputs: list[Tensor], features: Tensor, there: Tensor) -> dict[str, Tensor]:
        """The weighted terms.

        Args:
            inputs: What went into text, audio and vision, spread, at one step of each of N sequences: (N, columns) each.
            features: Of those steps, (3, N, P).
            there: Which lanes had anything, bool, (3, N); sequences without are left out.
        """
        shared, kept, fitting = [], [], []
        bounds = cast(Iterable[InfoNCE | Conditional], self.shared)
        for (one, other), bound in zip(self.pairs, bounds, strict=True):
            both = there[one] & there[other]
            if both.sum() >= bound.least:
                shared.append(bound.lower_bound(features[one][both], features[other][both]))
        for x, y, q, given in zip(inputs, features, cast(Iterable[Conditional], self.kept), there, strict=True):
            if given.sum() > 1:
                with frozen(q):
                    kept.append(q.upper_bound(x[given].detach(), y[given]).clamp_min(0))
                fitting.append(-q.log_likelihood(x[given].detach(), y[given].detach()).mean() / y.shape[-1])
        nothing = features.new_zeros(1)
        return {
            "shared": -self.weight_shared * torch.stack(shared or [nothing[0]]).sum(),
            "kept": self.weight_kept * torch.stack(kept or [nothing[0]]).sum(),
            "fitting": torch.stack(fitting or [nothing[0]]).sum(),
        }
