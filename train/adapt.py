"""The text lane's adapter: `python -m train.adapt`.

MiniLM is published as an encoder of what sentences are about. This tunes it to sentiment, on the words of MOSI, SST-5 and MELD:
beside each weight matrix W a matrix of low rank is learned (`extractors.text` says how it is kept), while W itself, and with it
most of what the encoder knows, stays. What reads the vectors in training is thrown away; the causal model learns to read them
anew, on the features that `train.prepare` then makes.
"""

import copy
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from extractors.text import ADAPTER, DOWN, HIDDEN, LAYERS, UP, WIDTH, TextEmbedder
from models.causal import SCORE_LIMIT
from stream.engine import resolve_device
from train import assess, command, config
from train.batches import by_length
from train.config import AdapterConfig, TrainConfig
from train.data import read_corpus
from train.errors import DataError
from train.items import Split, Text
from train.objective import sign_loss
from train.pools import Placed
from train.store import replacing

log = logging.getLogger("train.adapt")

_GROUP = 8  # batches are drawn together, and sorted by length among themselves
# The ends of the adapted matrices' names; the last is attention's output and the feed-forward network's.
_ADAPTED = ("query", "value", "intermediate.dense", "output.dense")
_READER = 64  # the hidden width of what reads the vectors
_EXAMPLES = """\
examples:
  python -m train.adapt --data corpora --out runs/adapter
  python -m train.adapt --data corpora --out runs/adapter --set adapter.rank=16

The adapter of the package is extractors/minilm-sentiment.safetensors. To serve another, put it there: the text lane's contract
then changes, so features are to be prepared and the model to be fitted anew. Every key: configs/train.yaml
"""


class Sentences(Placed):
    """A corpus's sentences in the order of their sentiment, as the numbers of their pieces."""

    def __init__(self, pieces: Sequence[list[int]], sentiments: Sequence[float]) -> None:
        """Take sentences, at least one."""
        order = np.argsort(sentiments, kind="stable")
        super().__init__([sentiments[number] for number in order])
        self.pieces = [pieces[number] for number in order]


class LowRank(nn.Module):
    """A weight with a matrix of low rank added, which is 0 at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn(rank, columns) / math.sqrt(columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The sum."""
        return weight + self.up @ self.down


class Adapted(nn.Module):
    """The encoder with low-rank matrices beside its weights, and a small network that reads its vectors."""

    def __init__(self, encoder: nn.Module, settings: AdapterConfig) -> None:
        """Adapt a copy of the encoder, whose own weights do not learn."""
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self._changes: dict[str, LowRank] = {}
        for name, module in self.encoder.named_modules():
            if isinstance(module, nn.Dropout):
                module.p = settings.dropout
            if isinstance(module, nn.Linear) and name.endswith(_ADAPTED):
                self._changes[f"{name}.weight"] = LowRank(module.weight, settings.rank)
        for name, change in self._changes.items():
            module = self.encoder.get_submodule(name.removesuffix(".weight"))
            parametrize.register_parametrization(module, "weight", change)
        self.reader = nn.Sequential(
            nn.Dropout(2 * settings.dropout),
            nn.Linear(WIDTH, _READER),
            nn.GELU(),
            nn.Dropout(2 * settings.dropout),
            nn.Linear(_READER, 1),
        )

    def forward(self, pieces: Tensor, there: Tensor) -> Tensor:
        """The sentiment of sentences: the numbers of their pieces (B, L), and where there are any (B, L), to (B,)."""
        states = self.encoder(input_ids=pieces, attention_mask=there, output_hidden_states=True).hidden_states
        weight = there[..., None] / there.sum(1)[:, None, None]  # (B, L, 1)
        means = torch.stack([(states[layer] * weight).sum(1) for layer in LAYERS], 1)  # (B, 2, 384)
        # Unit vectors have entries of about 1 / sqrt(384); the reader is given them of about 1.
        vectors = nn.functional.normalize(means, dim=-1).flatten(1) * math.sqrt(HIDDEN)  # (B, 768)
        score: Tensor = self.reader(vectors)[:, 0]
        return SCORE_LIMIT * score.tanh()

    def adapter(self) -> dict[str, Tensor]:
        """What has been learned for the encoder, as it is kept."""
        found: dict[str, Tensor] = {}
        for name, change in self._changes.items():
            found |= {f"{name}.{DOWN}": change.down, f"{name}.{UP}": change.up}
        return {name: value.detach().cpu().clone() for name, value in found.items()}


class Adapter(NamedTuple):
    """What training gives: the tensors, and the figures of the validation splits."""

    tensors: dict[str, Tensor]
    metrics: dict[str, dict[str, float]]


def main(arguments: list[str] | None = None) -> int:
    """Train one adapter; 0 if it was written, 2 if it could not be."""
    options = command.parser("adapt", "Tune the text lane's encoder to sentiment.", _EXAMPLES)
    command.add_data(options)
    options.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="for the adapter and TensorBoard's logs")
    command.add_settings(options)
    given = options.parse_args(arguments)

    def work() -> None:
        settings, device = config.load(given.config, tuple(given.set)), resolve_device(given.device)
        found = adapt(settings, given.data, given.out, device)
        with replacing(given.out / ADAPTER.name) as path:
            save_file(found.tensors, path)
        log.info("%s: %s", given.out / ADAPTER.name, found.metrics)

    return command.run(work, stopped="nothing is kept")


def adapt(settings: TrainConfig, data: Path, out: Path, device: torch.device) -> Adapter:
    """Train to the end; the best by validation is what comes of it. Raises `DataError`, or what an extractor raises."""
    chosen = settings.adapter
    embedder = TextEmbedder(adapter=None)
    train = {corpus: sentences(data, corpus, "train", embedder) for corpus in chosen.corpora}
    valid = {corpus: sentences(data, corpus, "valid", embedder) for corpus in chosen.validation}
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    model = Adapted(embedder.encoder, chosen).to(device).train()
    optimiser = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=chosen.learning_rate, weight_decay=chosen.weight_decay
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, chosen.learning_rate, total_steps=chosen.steps, pct_start=0.1, cycle_momentum=False
    )
    best, least = Adapter(model.adapter(), {}), math.inf
    batches = _drawn(train, chosen, np.random.default_rng(settings.seed))
    with SummaryWriter(str(out / "tensorboard")) as board, tqdm(total=chosen.steps, unit="step", disable=None) as bar:
        for step in range(1, chosen.steps + 1):
            pieces, truth = next(batches)
            score, target = model(*_padded(pieces, device)), torch.tensor(truth, dtype=torch.float32, device=device)
            loss = (score - target).abs().mean() + chosen.sign * sign_loss(score, target).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.fit.clip)
            optimiser.step()
            rate.step()
            bar.update()
            board.add_scalar("train/loss", loss.item(), step)
            if step % chosen.validate_every and step < chosen.steps:
                continue
            metrics = {
                corpus: assess.regression(_scores(model, each, device), each.sentiments) for corpus, each in valid.items()
            }
            error = assess.weighted_error(metrics, chosen.validation)
            board.add_scalar("valid/error", error, step)
            for corpus, values in metrics.items():
                for name, value in values.items():
                    board.add_scalar(f"valid/{corpus}/{name}", value, step)
            if error < least:
                best, least = Adapter(model.adapter(), metrics), error
            bar.set_postfix_str(f"error {error:.4f}, best {least:.4f}")
    return best


def sentences(data: Path, corpus: str, split: Split, embedder: TextEmbedder) -> Sentences:
    """A corpus's labelled sentences; raises `DataError` where it is missing or has none."""
    found = [
        (embedder.pieces(item.content.words), item.sentiment)
        for item in read_corpus(corpus, data / corpus)
        if item.split == split and item.sentiment is not None and isinstance(item.content, Text)
    ]
    if not found:
        raise DataError(f"{data / corpus} has no labelled words in its {split} split; give corpora of words")
    pieces, sentiments = zip(*found, strict=True)
    return Sentences(pieces, sentiments)


def _drawn(
    corpora: Mapping[str, Sentences], chosen: AdapterConfig, random: np.random.Generator
) -> Iterator[tuple[list[list[int]], list[float]]]:
    """Batches without end, each of sentences of like length."""
    names = sorted(corpora)
    weights = np.array([chosen.corpora[name] for name in names])
    while True:
        several = random.choice(len(names), size=_GROUP * chosen.batch, p=weights / weights.sum())
        from_each = [corpora[names[number]] for number in several]
        drawn = [(each, each.draw(random, chosen.balance)) for each in from_each]
        pieces = [each.pieces[number] for each, number in drawn]
        truth = [each.sentiment(number) for each, number in drawn]
        for numbers in random.permuted(list(by_length([len(each) for each in pieces], chosen.batch)), axis=0):
            yield [pieces[number] for number in numbers], [truth[number] for number in numbers]


def _padded(pieces: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """The pieces' numbers, and where there are any, (B, L) each."""
    rows = [torch.tensor(each) for each in pieces]
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    there = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return padded.to(device), there.to(device)


def _scores(model: Adapted, of: Sentences, device: torch.device) -> assess.Scores:
    """The scores of all sentences, (N,)."""
    found = np.zeros(len(of.pieces))
    model.eval()
    with torch.inference_mode(), parametrize.cached():
        for numbers in by_length([len(each) for each in of.pieces], 64):
            found[numbers] = model(*_padded([of.pieces[number] for number in numbers], device)).cpu().numpy()
    model.train()
    return found


if __name__ == "__main__":
    sys.exit(main())
