"""Text: a vector for each word that uses only the words of the utterance up to it.

The vector is the mean-pooled all-MiniLM-L6-v2 sentence vector of the utterance so far, not the word's own token vector in it:
measured on MOSI's validation split, it carries more of the sentiment (benchmarks/text_vectors.py; figures in
docs/benchmarks.md). Source of the encoder and its pooling: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2

The published encoder is tuned to tell what sentences are about. The *adapter*, a small file of this package, tunes it to tell
how they are meant: it adds a matrix of low rank to each of many weights (E. Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", ICLR 2022) and was trained by `python -m train.adapt`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from extractors.assets import MINILM_VOCABULARY, MINILM_WEIGHTS, fetch
from extractors.contract import FeatureContract
from extractors.errors import Unavailable

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER = Path(__file__).with_name("minilm-sentiment.safetensors")
DOWN, UP = "down", "up"  # an adapter has "NAME.down" (R, columns) and "NAME.up" (rows, R) for a weight NAME (rows, columns)
LAYERS = (3, 6)  # the middle one keeps more of the words themselves, the last one is tuned for whole sentences
HIDDEN = 384  # of a layer
WIDTH = len(LAYERS) * HIDDEN
MAX_PIECES = 256  # the length that the published model was tuned for; of a longer utterance the newest pieces are read
CONTRACT = FeatureContract(
    name="text",
    version=3,
    columns=tuple(f"minilm_{layer}_{index}" for layer in LAYERS for index in range(HIDDEN)),
    parameters={
        "weights_sha256": MINILM_WEIGHTS.sha256,
        "vocabulary_sha256": MINILM_VOCABULARY.sha256,
        "adapter_sha256": hashlib.sha256(ADAPTER.read_bytes()).hexdigest(),
        "context": "utterance_so_far",
        "pooling": "mean",
        "max_pieces": MAX_PIECES,
    },
)

# Marks for what is no word: <sil> [NOISE] [SPEECH] (laughter) {breath} ++um++ and CMU's pause "sp".
_MARK = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|\+\+.*?\+\+")
_PAUSE = "sp"
_APOSTROPHES = str.maketrans("‘’ʼ`", "''''")


def normalise(text: str) -> list[str]:
    """The words of a transcript or of a recogniser's output, written the one way that the text lane reads.

    Lower case; hyphens and slashes part words; other punctuation falls away, but an apostrophe inside a word stays;
    recognisers' marks for noise and pauses are no words.

    Example:
        >>> normalise("Well-made… I DIDN'T expect it! [NOISE] <sil>")
        ['well', 'made', 'i', "didn't", 'expect', 'it']
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    text = re.sub(r"[-/–—_]", " ", _MARK.sub(" ", text))
    words = (re.sub(r"[^\w']", "", word).strip("'") for word in text.split())
    return [word for word in words if word and word != _PAUSE]


class TextEmbedder:
    """Embeds an utterance as it grows.

    Attributes:
        encoder: The network.

    Example:
        embedder = TextEmbedder()
        vector = embedder.embed(["i", "love", "it"])  # (768,)
    """

    contract = CONTRACT

    def __init__(self, adapter: Path | None = ADAPTER) -> None:
        """Load the encoder.

        Args:
            adapter: What is added to the published weights; None for nothing. With any but the package's own the vectors are
                not those of the contract.

        Raises:
            Unavailable: Its weights or vocabulary cannot be had.
        """
        weights, vocabulary = fetch(MINILM_WEIGHTS), fetch(MINILM_VOCABULARY)
        from safetensors.torch import load_file

        try:
            from tokenizers import BertWordPieceTokenizer
            from transformers import BertConfig, BertModel
            from transformers.utils import logging

            logging.disable_progress_bar()
            # The published configuration; what it does not name is BERT's default (12 heads of 32, GELU, 512 positions).
            shape = BertConfig(hidden_size=HIDDEN, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
            self.encoder: Any = BertModel(shape, add_pooling_layer=False).eval()
            state = load_file(weights)
            if adapter:
                state |= adapted(state, load_file(adapter))
            missing, _ = self.encoder.load_state_dict(state, strict=False)  # its pooler is not used here
        except (ImportError, OSError, RuntimeError, ValueError, KeyError) as error:
            raise Unavailable(f"MiniLM does not load ({str(error).splitlines()[0]}); reinstall transformers") from error
        if missing:
            raise Unavailable(f"MiniLM's weights lack {missing[0]}; another version of transformers is needed")
        self._tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)

    def embed(self, words: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vector of an utterance so far.

        Args:
            words: The normalised words of the utterance up to now, at least one.

        Returns:
            For each of `LAYERS` the mean over the pieces, of unit length, float32, shape (768,). The same words give the same
            bits: each call encodes one sentence alone.
        """
        means = self.encode(words).mean(1)
        unit: npt.NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit.ravel()

    def encode(self, words: Sequence[str]) -> npt.NDArray[np.float32]:
        """The encoder's `LAYERS` over [CLS], the words' pieces and [SEP], float32, shape (2, L, 384)."""
        import torch

        if not words:
            raise ValueError("there must be at least one word")
        ids = torch.tensor([self.pieces(words)])  # (1, L)
        with torch.inference_mode():
            states = self.encoder(input_ids=ids, output_hidden_states=True).hidden_states
        return np.stack([states[layer][0].numpy() for layer in LAYERS])

    def pieces(self, words: Sequence[str]) -> list[int]:
        """The numbers of [CLS], the words' pieces and [SEP], at most `MAX_PIECES`."""
        start, *pieces, end = self._tokenizer.encode(" ".join(words)).ids
        return [start, *pieces[-(MAX_PIECES - 2) :], end]


def adapted(weights: "Mapping[str, Tensor]", adapter: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The weights that an adapter changes, changed; a KeyError names one that is not there."""
    names = {name.rpartition(".")[0] for name in adapter}
    return {name: weights[name] + adapter[f"{name}.{UP}"] @ adapter[f"{name}.{DOWN}"] for name in names}
