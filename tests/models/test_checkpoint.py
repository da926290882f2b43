"""Checkpoints: what is saved comes back to the bit, nothing is unpickled, and what is wrong with one is told in a line."""

import json
import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.causal import FLAGS, MODALITIES
from models.checkpoint import Card, CheckpointError, Pretrained
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig, MMLatch, MMLatchConfig

SIZES: dict[str, Any] = {"text": 5, "audio": 4, "vision": 3}
CAUSAL = CausalMMLatchConfig(**SIZES, hidden=4, max_steps=6, dropout=0.1)
CARD = Card(
    {"text": "text.1@0123456789abcdef", "audio": "audio.1@fedcba9876543210", "windows": "mean+std/250000000ns"},
    ("mosei", "scripted"),
    {"mae": 0.875, "windows": 12},
)
MODELS: dict[str, tuple[type[Pretrained], Any]] = {
    "causal": (CausalMMLatch, CAUSAL),
    "causal over features": (CausalMMLatch, CausalMMLatchConfig(**SIZES, hidden=4, masking="features")),
    "published": (MMLatch, MMLatchConfig(**SIZES, hidden=4)),
    "static": (MMLatch, MMLatchConfig(**SIZES, hidden=4, feedback="static", dropout=0.3, ignore_lengths=True)),
    "late fusion": (MMLatch, MMLatchConfig(**SIZES, hidden=4, feedback="none", mask_dropout_in_eval=True)),
}
Weights = dict[str, Tensor]


def made(kind: type[Pretrained] = CausalMMLatch, config: Any = CAUSAL, card: Card = CARD, seed: int = 0) -> Pretrained:
    model = kind.untrained(config, seed=seed)
    model.card = card
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=(pytest.mark.cuda, no_gpu))])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def prediction(model: Pretrained) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    flags = FLAGS if isinstance(model, CausalMMLatch) else 0
    inputs = {m: torch.randn(2, 5, SIZES[m] + flags, generator=generator) for m in MODALITIES}
    if isinstance(model, CausalMMLatch):
        found, _ = model(inputs, model.initial_state(2))
        return [found.sentiment, found.uncertainty, found.weights, *found.masks.values()]
    sentiment, masks = model(inputs, torch.tensor([5, 3]))
    return [sentiment, *masks.values()]


def same_bits(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one
    )


def refusal(folder: Path, kind: type[Pretrained] = CausalMMLatch, **options: Any) -> str:
    """What is said after the folder's name."""
    with pytest.raises(CheckpointError) as caught:
        kind.from_pretrained(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(folder))
    return text.removeprefix(str(folder))


# --- there and back


@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_comes_back_to_the_bit(name: str, device: torch.device, tmp_path: Path) -> None:
    kind, config = MODELS[name]
    model = made(kind, config)
    with torch.no_grad():
        next(model.parameters()).view(-1)[:3] = torch.tensor([-0.0, 1e-42, 3e38])
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(device).train().save_pretrained(tmp_path / "new" / "folder")
    loaded = kind.from_pretrained(str(tmp_path / "new" / "folder"), contracts=CARD.contracts)
    assert type(loaded) is kind
    assert (loaded.config, loaded.card) == (config, CARD)
    assert same_bits(loaded.state_dict(), weights)
    assert loaded.digest() == model.digest()


@pytest.mark.parametrize("name", ["causal", "causal over features", "published"])
def test_a_loaded_model_predicts_the_same_and_is_in_evaluation_mode(name: str, tmp_path: Path) -> None:
    model = made(*MODELS[name]).train()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert not any(module.training for module in loaded.modules())
    assert all(map(torch.equal, prediction(loaded), prediction(model.eval())))


def test_the_files_are_json_and_safetensors(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    text = (folder / "config.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "model_type": "mmlatch-causal",
        "format": 1,
        "config": asdict(CAUSAL),
        "contracts": dict(CARD.contracts),
        "data": ["mosei", "scripted"],
        "metrics": {"mae": 0.875, "windows": 12},
    }
    assert same_bits(load_file(folder / "model.safetensors"), made().state_dict())


def test_without_a_card_it_says_that_nothing_is_known(tmp_path: Path) -> None:
    CausalMMLatch.untrained(CAUSAL).save_pretrained(tmp_path)
    assert CausalMMLatch.from_pretrained(tmp_path, contracts={}).card == Card({}, (), {})


def test_saving_replaces_what_was_there(folder: Path) -> None:
    other = made(MMLatch, MMLatchConfig(**SIZES, hidden=2), Card(data=("other",)))
    other.save_pretrained(folder)
    loaded = MMLatch.from_pretrained(folder)
    assert (loaded.config, loaded.card) == (other.config, other.card)
    assert same_bits(loaded.state_dict(), other.state_dict())
    assert len(list(folder.iterdir())) == 2


def test_what_was_loaded_does_not_need_its_files_any_more(folder: Path) -> None:
    loaded = CausalMMLatch.from_pretrained(folder)
    made(seed=1).save_pretrained(folder)
    assert same_bits(loaded.state_dict(), made().state_dict())


@pytest.mark.parametrize("name", ["causal", "published"])
def test_the_digest_tells_any_two_weights_apart(name: str) -> None:
    model = made(*MODELS[name])
    seen = {model.digest()}
    for value in model.state_dict().values():
        value.view(-1)[-1] += 1.0
        seen.add(model.digest())
    assert len(seen) == 1 + len(model.state_dict())
    assert all(len(digest) == 6 and int(digest, 16) >= 0 for digest in seen)


def test_untrained_weights_are_the_same_every_time_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = CausalMMLatch.untrained(CAUSAL)
    assert torch.rand(1) == expected
    assert not one.training
    assert one.card.data == ()
    assert one.digest() == CausalMMLatch.untrained(CAUSAL).digest() != CausalMMLatch.untrained(CAUSAL, seed=1).digest()


# --- nothing is unpickled


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


def pickled(about: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(about))


@pytest.mark.parametrize("write", [torch.save, pickled])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("config", [True, False], ids=["with config.json", "alone"])
def test_nothing_is_ever_unpickled(
    write: Callable[[Any, Path], None], name: str, config: bool, folder: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    write(made().state_dict() | {"trap": Trap(marker)}, folder / name)
    with suppress(RuntimeError):
        torch.load(folder / name, weights_only=False)
    marker.unlink()  # the trap works
    if not config:
        (folder / "config.json").unlink()
    text = refusal(folder)
    assert not marker.exists()
    if not config:
        assert "config.json: cannot be read" in text
    elif name == "pytorch_model.bin":
        assert "model.safetensors: cannot be read" in text
        assert "pytorch_model.bin would have to be unpickled, which is never done" in text
    else:
        assert "model.safetensors: cut short or damaged" in text


# --- config.json


def test_missing_files_are_told(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "elsewhere")
    assert refusal(folder).startswith("/model.safetensors: cannot be read (no such file)")
    (folder / "config.json").unlink()
    expected = "/config.json: cannot be read (No such file or directory); a checkpoint has config.json and model.safetensors"
    assert refusal(folder) == expected


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "there is no such folder" in refusal(tmp_path / "file")


@pytest.mark.parametrize(
    "content",
    [b"", b'{"model_type": "mm', b"\xff\xfe{}", b"{}{}", pytest.param(b"[" * 100_000, id="deep")],
)
def test_what_is_no_json_is_told(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    assert refusal(folder) == "/config.json: not valid JSON; copy the checkpoint anew"


@pytest.mark.parametrize("content", ["[]", "null", "3", '"mmlatch-causal"', "{}"])
def test_what_is_no_object_is_no_checkpoint(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    assert "expected 'mmlatch-causal', 1" in refusal(folder)


ABSENT = object()


def changed(folder: Path, key: str, value: Any) -> Path:
    """The folder, with another value for a key of its JSON."""
    about = json.loads((folder / "config.json").read_text())
    *parents, last = key.split("/")
    inside = about[parents[0]] if parents else about
    inside[last] = value
    if value is ABSENT:
        del inside[last]
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("model_type", "mmlatch", "model_type and format are 'mmlatch', 1, expected 'mmlatch-causal', 1"),
        ("model_type", ["a\nb"], "expected 'mmlatch-causal', 1"),
        ("model_type", ABSENT, "None, 1, expected 'mmlatch-causal', 1"),
        ("format", 2, "'mmlatch-causal', 2, expected 'mmlatch-causal', 1"),
        ("format", "1", "'mmlatch-causal', '1', expected"),
        ("format", ABSENT, "'mmlatch-causal', None, expected"),
        ("config", ABSENT, "config"),
        ("config", ["text"], "config"),
        ("config/layers", 3, "unknown in config: 'layers', expected audio, dropout, hidden, masking, max_steps, text, vision"),
        ("config/text", ABSENT, "text"),
        ("config/vision", ABSENT, "vision"),
        ("contracts", ABSENT, "contracts"),
        ("contracts", 5, "contracts is 5, expected dict"),
        ("data", ABSENT, "data"),
        ("data", None, "data is None, expected list"),
        ("metrics", ABSENT, "metrics"),
        ("metrics", "mae", "metrics is 'mae', expected dict"),
    ],
)
def test_a_wrong_key_is_told(key: str, value: Any, part: str, folder: Path) -> None:
    text = refusal(changed(folder, key, value))
    assert text.startswith("/config.json: ")
    assert part in text


@pytest.mark.parametrize("name", ["hidden", "max_steps", "masking", "dropout"])
def test_no_key_of_the_configuration_is_guessed(name: str, folder: Path) -> None:
    text = refusal(changed(folder, f"config/{name}", ABSENT))
    assert text.startswith("/config.json: ")
    assert name in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("config/hidden", value) for value in ("64", None, True, 4.0, [4], 0, -1, 2**61)),
        *(("config/text", value) for value in ("5", None, -5)),
        *(("config/max_steps", value) for value in ("6", None, 6.5, 0, -3)),
        *(("config/masking", value) for value in ("other", None, 1)),
        *(("config/dropout", value) for value in ("0.2", None, -0.1, 2)),
        ("contracts", {"text": 5}),
        ("data", "mosei"),
        ("data", [3]),
        ("metrics", {"mae": "low"}),
    ],
)
def test_a_wrong_value_is_told_with_its_key(key: str, value: Any, folder: Path) -> None:
    text = refusal(changed(folder, key, value))
    assert text.startswith("/config.json: ")
    assert key.rpartition("/")[2] in text


def test_a_wrong_value_of_the_published_model_is_told_with_its_key(tmp_path: Path) -> None:
    made(*MODELS["published"]).save_pretrained(tmp_path)
    assert "feedback" in refusal(changed(tmp_path, "config/feedback", "both"), MMLatch)


def test_a_key_cannot_break_the_line(folder: Path) -> None:
    assert "unknown in config" in refusal(changed(folder, "config/a\nb", 1))


@pytest.mark.parametrize(("wanted", "there"), [(CausalMMLatch, "published"), (MMLatch, "causal")])
def test_another_model_is_told(wanted: type[Pretrained], there: str, tmp_path: Path) -> None:
    made(*MODELS[there]).save_pretrained(tmp_path)
    assert f"expected {wanted.model_type!r}, 1" in refusal(tmp_path, wanted)


# --- model.safetensors


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A checkpoint, and its weights as they were written."""
    folder = tmp_path_factory.mktemp("saved")
    made().save_pretrained(folder)
    return folder, (folder / "model.safetensors").read_bytes()


def header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def refused_as_damaged(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert refusal(folder).startswith("/model.safetensors: ")


@settings(deadline=None, max_examples=150)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
def test_a_file_cut_short_anywhere_is_refused(saved: tuple[Path, bytes], share: float) -> None:
    folder, content = saved
    refused_as_damaged(folder, content[: int(share * len(content))])


def test_a_file_cut_short_at_a_seam_is_refused(saved: tuple[Path, bytes]) -> None:
    folder, content = saved
    end = header_end(content)
    starts = [end + about["data_offsets"][0] for about in json.loads(content[8:end]).values()]
    for place in (7, 8, 9, end - 1, end + 1, len(content) - 1, *starts):
        refused_as_damaged(folder, content[:place])
    refused_as_damaged(folder, content + b"\0")


@settings(deadline=None, max_examples=200)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_header_is_refused(saved: tuple[Path, bytes], share: float, bit: int) -> None:
    folder, content = saved
    damaged = bytearray(content)
    damaged[int(share * header_end(content))] ^= 1 << bit
    refused_as_damaged(folder, bytes(damaged))


DAMAGES: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "missing": (lambda w: {name: value for name, value in w.items() if name != "head.bias"}, "head.bias is missing"),
    "unknown": (lambda w: w | {"tail.bias": torch.zeros(2)}, "'tail.bias' is not known"),
    "size": (lambda w: w | {"head.bias": torch.zeros(3)}, "head.bias is torch.float32 (3,), expected torch.float32 (2,)"),
    "axes": (lambda w: w | {"head.bias": torch.zeros(1, 2)}, "head.bias is torch.float32 (1, 2), expected torch.float32 (2,)"),
    "nan": (lambda w: w | {"head.bias": torch.tensor([0.0, torch.nan])}, "head.bias holds NaN or infinity"),
    "inf": (lambda w: w | {"head.bias": torch.tensor([-torch.inf, 0.0])}, "head.bias holds NaN or infinity"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_that_do_not_fit_are_told_by_name(damage: str, folder: Path) -> None:
    change, part = DAMAGES[damage]
    save_file(change(made().state_dict()), folder / "model.safetensors")
    assert part in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str)
def test_weights_of_another_type_are_told_by_name(dtype: torch.dtype, folder: Path) -> None:
    weights = made().state_dict()
    save_file(weights | {"head.bias": weights["head.bias"].to(dtype)}, folder / "model.safetensors")
    assert "head.bias is" in refusal(folder)


def test_a_weights_name_cannot_break_the_line(folder: Path) -> None:
    save_file(made().state_dict() | {"tail\nbias": torch.zeros(2)}, folder / "model.safetensors")
    assert "is not known" in refusal(folder)


@pytest.mark.parametrize("missing", [1, 3, 4, 9])
def test_of_many_weights_that_do_not_fit_three_are_told_and_the_others_counted(missing: int, folder: Path) -> None:
    weights = made().state_dict()
    lost = sorted(random.Random(missing).sample(sorted(weights), missing))
    save_file({name: value for name, value in weights.items() if name not in lost}, folder / "model.safetensors")
    text = refusal(folder)
    assert [f"{name} is missing" in text for name in lost] == [True] * min(missing, 3) + [False] * (missing - 3)
    assert (f"and {missing - 3} more;" in text) == (missing > 3)
    assert ("more" in text) == (missing > 3)


# --- contracts


def test_all_contracts_that_differ_are_told_at_once(folder: Path) -> None:
    here = {"text": CARD.contracts["text"], "audio": "audio.2@1111111111111111", "vision": "vision.1@2222222222222222"}
    text = refusal(folder, contracts=here)
    for part in (
        "audio is audio.2@1111111111111111 here and audio.1@fedcba9876543210 there",
        "vision is vision.1@2222222222222222 here and absent there",
        "windows is absent here and mean+std/250000000ns there",
    ):
        assert part in text
    assert "text is" not in text


@pytest.mark.parametrize("name", CARD.contracts)
def test_one_contract_that_differs_is_enough(name: str, folder: Path) -> None:
    others = {key: value for key, value in CARD.contracts.items() if key != name}
    assert f"{name} is absent here" in refusal(folder, contracts=others)
    assert f"{name} is other here" in refusal(folder, contracts=others | {name: "other"})
    assert "more is other here and absent there" in refusal(folder, contracts={**CARD.contracts, "more": "other"})


def test_who_does_not_care_gets_any_contracts(folder: Path) -> None:
    assert CausalMMLatch.from_pretrained(folder, contracts=None).card == CARD
    assert CausalMMLatch.from_pretrained(folder, contracts=dict(CARD.contracts)).card == CARD
    assert "there" in refusal(folder, contracts={})
