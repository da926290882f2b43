import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.causal import FLAGS, MODALITIES
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from models.state import State
from stream.bucket import Steps
from stream.engine import Engine, Estimates, Slot, resolve_device
from stream.errors import UsageError
from stream.track import Step, Track

# Wide enough that a product over several rows does differ from products over one in its last bits.
CONFIG = CausalMMLatchConfig(text=7, audio=5, vision=6, hidden=24, max_steps=6)
WIDTH = CONFIG.text + CONFIG.audio + CONFIG.vision + 3 * FLAGS
TAIL = 5
RING = 19  # windows that the histories hold: the longest utterance, the tail, and the longest call
CLOSE = 1e-5  # calls of another shape
GPU_CLOSE = 1e-4  # another device
PADDING = Step(-1, True, np.full(WIDTH, 9.0, np.float32))
NEEDS_GPU = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
Row = list[float]  # sentiment, uncertainty, three weights, and masks if there are any


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def made(device: str, *, config: CausalMMLatchConfig = CONFIG, bucket: int = 3, tail: int = TAIL, **options: bool) -> Engine:
    return Engine(CausalMMLatch.untrained(config), torch.device(device), bucket=bucket, tail=tail, **options)


def counted(device: str, bucket: int = 1) -> tuple[Engine, list[int]]:
    """An engine, and of each call of its model the number of windows."""
    model, calls = CausalMMLatch.untrained(CONFIG), []
    engine = Engine(model, torch.device(device), bucket=bucket, tail=TAIL, graphs=False)
    tracks = [Track(engine) for _ in range(bucket + 1)]
    for track in tracks:
        for count in range(1, TAIL + 1):  # a GPU's first call of a shape runs twice
            track.speculate(windows(count, seed=90 + count))
        track.close()
    model.register_forward_pre_hook(lambda _, args: calls.append(args[0]["text"].shape[1]))
    return engine, calls


def window(seq: int, restart: bool = False, seed: int = 0) -> Step:
    return Step(seq, restart, np.random.default_rng([seed, seq]).normal(size=WIDTH).astype(np.float32))


def windows(count: int, *, first: int = 0, restarts: Iterable[int] = (), seed: int = 0) -> list[Step]:
    return [window(seq, seq in set(restarts), seed) for seq in range(first, first + count)]


def packed(tails: Iterable[Sequence[Step]]) -> Steps:
    tails = list(tails)
    longest = max(len(tail) for tail in tails)
    padded = [[*tail, *[PADDING] * (longest - len(tail))] for tail in tails]
    return Steps(
        seq=np.array([tail[0].seq for tail in tails]),
        count=np.array([len(tail) for tail in tails]),
        restart=np.array([[step.restart for step in tail] for tail in padded]),
        inputs=np.array([[step.inputs for step in tail] for tail in padded]),
    )


def rows(found: Estimates) -> list:
    return np.concatenate(
        [found.sentiment[..., None], found.uncertainty[..., None], found.weights, found.masks], axis=-1
    ).tolist()


def extend(engine: Engine, work: Mapping[Slot, Sequence[Step]]) -> dict[Slot, list[Row]]:
    found = rows(engine.extend(list(work), packed(work.values())))
    return {slot: tail[: len(work[slot])] for slot, tail in zip(work, found, strict=True)}


def settle(engine: Engine, slots: Sequence[Slot]) -> dict[Slot, Row]:
    return dict(zip(slots, rows(engine.settle(slots)), strict=True))


def commit(engine: Engine, work: Mapping[Slot, Step]) -> dict[Slot, Row]:
    extend(engine, {slot: [step] for slot, step in work.items()})
    return settle(engine, list(work))


def alone(engine: Engine, steps: Iterable[Step], row: int = 0) -> list[Row]:
    """The finals of one session in that row of an engine where nothing else happens."""
    slot = [engine.open() for _ in range(row + 1)][row]
    return [commit(engine, {slot: step})[slot] for step in steps]


def bits(state: State) -> dict[str, str]:
    """A digest of each part: it differs if a bit differs."""
    parts = {**state.recurrent, **state.history, "position": state.position, "length": state.length}
    return {name: hashlib.sha256(part.cpu().contiguous().numpy().tobytes()).hexdigest() for name, part in parts.items()}


def states(engine: Engine, slots: Iterable[Slot]) -> dict[Slot, dict[str, str]]:
    return {slot: bits(engine.state(slot)) for slot in slots}


def by_the_model(steps: Sequence[Step]) -> list[Row]:
    """Each utterance in one call of the model, on the CPU."""
    model = CausalMMLatch.untrained(CONFIG)
    starts = [0, *(index for index, step in enumerate(steps) if index and step.restart)]
    found: list[Row] = []
    for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
        inputs = torch.from_numpy(np.stack([step.inputs for step in steps[start:end]]))[None]
        lanes = inputs.split([getattr(CONFIG, m) + FLAGS for m in MODALITIES], -1)
        with torch.inference_mode():
            said, _ = model(dict(zip(MODALITIES, lanes, strict=True)), model.initial_state(1, capacity=end - start))
        found += torch.cat([said.sentiment[..., None], said.uncertainty[..., None], said.weights], -1)[0].tolist()
    return found


def assert_close(found: Sequence[Row], expected: Sequence[Row], within: float = CLOSE) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=within)


# What happens to a session in a tick: nothing; its next window is settled; it ends and another takes its slot; or from some
# window of its tail on there are others, each as it will be settled (0), or with other input (1), another restart (2), or both.
SETTLE, REOPEN = "settle", "reopen"
TAILS = st.tuples(st.integers(0, TAIL - 1), st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=1, max_size=TAIL))
Move = None | str | tuple[int, list[int]]


def truth(seq: int, seed: int) -> Step:
    return window(seq, np.random.default_rng([seed, seq, 1]).random() < 0.2, seed)


@dataclass
class Life:
    """A session and the finals that it has had."""

    slot: Slot
    first: int
    seed: int
    finals: list[Row] = field(default_factory=list)
    tail: list[Step] = field(default_factory=list)

    @property
    def next(self) -> int:
        return self.first + len(self.finals)

    def guess(self, depth: int, versions: Sequence[int]) -> list[Step]:
        depth = min(depth, len(self.tail))
        del self.tail[depth:]
        steps = []
        for seq, version in enumerate(versions[: TAIL - depth], self.next + depth):
            true = truth(seq, self.seed)
            steps.append(Step(seq, true.restart ^ (version > 1), true.inputs[::-1].copy() if version % 2 else true.inputs))
        self.tail += steps
        return steps

    @property
    def is_right(self) -> bool:
        return bool(self.tail) and self.tail[0].same(truth(self.next, self.seed))


def play(engine: Engine, ticks: Sequence[Sequence[Move]], first: int = 0) -> list[Life]:
    """Sessions side by side; what is to be done in a tick is done in as few calls as can be."""
    lives = [Life(engine.open(), first + 11 * index, index) for index in range(len(ticks[0]))]
    ended: list[Life] = []
    for moves in ticks:
        for index, move in enumerate(moves):
            if move == REOPEN:
                ended.append(lives[index])
                engine.close(lives[index].slot)
                lives[index] = Life(engine.open(), 7 * len(ended), 100 + len(ended))
        guesses = {life.slot: life.guess(*move) for life, move in zip(lives, moves, strict=True) if isinstance(move, tuple)}
        due = [life for life, move in zip(lives, moves, strict=True) if move == SETTLE]
        corrections = {life.slot: life.guess(0, [0]) for life in due if not life.is_right}
        for work in (guesses, corrections):
            if work:
                extend(engine, work)
        if due:
            finals = settle(engine, [life.slot for life in due])
            for life in due:
                life.finals.append(finals[life.slot])
                del life.tail[0]
    return ended + lives


def assert_as_if_alone(life: Life, engine: Engine, row: int = 0) -> None:
    inputs = [truth(seq, life.seed) for seq in range(life.first, life.next)]
    assert life.finals == alone(engine, inputs, row)


@pytest.mark.parametrize("bucket", [1, 3])
@settings(deadline=None, max_examples=30)
@given(ticks=st.lists(st.just(SETTLE) | TAILS, max_size=30), first=st.integers(0, 2 * RING))
def test_provisional_runs_never_change_a_bit_of_the_finals(device: str, bucket: int, ticks: list[Move], first: int) -> None:
    engines = [made(device, bucket=bucket, graphs=False) for _ in range(2)]  # to capture graphs for every example takes minutes
    (life,) = play(engines[0], [[tick] for tick in ticks + [SETTLE] * 8], first)
    assert_as_if_alone(life, engines[1])


@settings(deadline=None, max_examples=30)
@given(ticks=st.lists(st.tuples(*[st.none() | st.sampled_from([SETTLE, REOPEN]) | TAILS] * 4), max_size=12))
def test_finals_do_not_depend_by_a_bit_on_who_shares_the_batch(device: str, ticks: list[Sequence[Move]]) -> None:
    for life in play(made(device, graphs=False), ticks + [[SETTLE] * 4] * 4):
        assert_as_if_alone(life, made(device, graphs=False), life.slot.place % 3)


def test_nor_over_many_windows_with_tails_of_all_lengths(device: str) -> None:
    moves: list[Move] = [SETTLE, (0, [0] * TAIL), (0, [0]), (1, [0]), (0, [0, 0])]
    ticks = [[moves[(tick + 3 * who) % 5] for who in range(3)] for tick in range(15 * RING)]
    for life in play(made(device), ticks):
        assert len(life.finals) == 3 * RING
        assert_as_if_alone(life, made(device), life.slot.place)


@pytest.mark.parametrize("length", range(1, TAIL + 1))
def test_finals_do_not_depend_by_a_bit_on_how_long_a_tail_was_and_how_it_grew(device: str, length: int) -> None:
    for cuts in product([False, True], repeat=length - 1):
        edges = [0, *(index for index, cut in enumerate(cuts, 1) if cut), length]
        growing: list[Move] = [(start, [0] * (end - start)) for start, end in pairwise(edges)]
        (life,) = play(made(device, graphs=False), [[move] for move in 3 * (growing + [SETTLE] * length)])
        assert_as_if_alone(life, made(device, graphs=False))


@settings(deadline=None, max_examples=20)
@given(moves=st.lists(st.tuples(st.sets(st.integers(0, 4), min_size=1), st.integers(0, TAIL), st.booleans()), max_size=8))
def test_only_what_is_settled_changes_a_state(device: str, moves: list[tuple[set[int], int, bool]]) -> None:
    engine = made(device)
    slots = [engine.open() for _ in range(5)]  # two buckets
    after = [-1] * 5
    for chosen, ahead, restart in [(set(range(5)), 0, False), *moves]:
        work = {slots[k]: windows(ahead + 1, first=after[k] + 1, restarts=[after[k] + 1] * restart, seed=k) for k in chosen}
        work = {slot: tail[:TAIL] for slot, tail in work.items()}
        before = states(engine, slots)
        extend(engine, work)
        assert states(engine, slots) == before
        settle(engine, list(work))
        changed = {k for k, slot in enumerate(slots) if bits(engine.state(slot)) != before[slot]}
        assert changed == chosen
        after = [seq + (k in chosen) for k, seq in enumerate(after)]


def test_a_restart_touches_its_slot_alone(device: str) -> None:
    found = []
    for restarts in ((), (4,)):
        engine = made(device)
        slots = [engine.open() for _ in range(3)]
        sessions = [windows(8, seed=0), windows(8, restarts=restarts, seed=1), windows(8, seed=2)]
        found.append([commit(engine, dict(zip(slots, steps, strict=True))) for steps in zip(*sessions, strict=True)])
    for seq, (without, with_it) in enumerate(zip(*found, strict=True)):
        differing = [index for index, row in enumerate(without.values()) if row != [*with_it.values()][index]]
        assert differing == ([1] if seq >= 4 else [])


@pytest.mark.parametrize("first", [1, 4, 2 * RING])
def test_a_restart_forgets_all_that_was_before(device: str, first: int) -> None:
    used = alone(made(device), windows(first + 8, restarts=[first]))
    assert used[first:] == alone(made(device), windows(8, first=first))


def test_who_is_in_which_slot_does_not_matter(device: str) -> None:
    # Not to the bit: a product may take its rows in another order.
    sessions = [windows(8, restarts=[5 - who], seed=who) for who in range(5)]
    found = []
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        engine = made(device)
        slots = {who: engine.open() for who in order}
        tails = extend(engine, {slots[who]: sessions[who][:TAIL] for who in range(5)})
        finals = [commit(engine, {slots[who]: sessions[who][seq] for who in range(5)}) for seq in range(8)]
        found.append([[*tails[slots[who]], *(each[slots[who]] for each in finals)] for who in range(5)])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("restart", [True, False])
def test_a_slot_shows_nothing_of_who_had_it_before(device: str, restart: bool) -> None:
    used, fresh = made(device), made(device)
    neighbours = {engine: engine.open() for engine in (used, fresh)}
    old = used.open()
    for step in windows(RING + 3, seed=8):
        commit(used, {old: step})
    extend(used, {old: windows(TAIL, first=RING + 3, seed=8)})
    used.close(old)
    inputs = windows(RING, first=2, restarts=[2] * restart)
    found: list[list[object]] = [[], []]
    for seen, (engine, neighbour) in zip(found, neighbours.items(), strict=True):
        slot = engine.open()
        assert slot.place == old.place
        with pytest.raises(ValueError, match=r"^slots: .*nothing to settle; "):
            engine.settle([slot])
        seen += [bits(engine.state(slot)), extend(engine, {slot: [window(2, restart, seed=7)]})[slot], bits(engine.state(slot))]
        for seq in range(len(inputs)):
            seen.append(extend(engine, {slot: inputs[seq : seq + TAIL]})[slot])
            extend(engine, {neighbour: windows(TAIL)})
            seen += [settle(engine, [slot])[slot], bits(engine.state(slot))]
    assert found[0] == found[1]


def test_a_slot_that_was_given_back_is_closed_for_good(device: str) -> None:
    engine = made(device)
    old = engine.open()
    extend(engine, {old: windows(3)})
    engine.close(old)
    for taken in (False, True):
        new = engine.open() if taken else None
        before = new and bits(engine.state(new))
        for use in (
            engine.close,
            engine.state,
            lambda slot: engine.settle([slot]),
            lambda slot: extend(engine, {slot: windows(1)}),
        ):
            with pytest.raises(ValueError, match=r"^slots: .*closed; open one for each session$"):
                use(old)
        assert before == (new and bits(engine.state(new)))


def test_slots_are_used_again_before_more_memory_is_taken(device: str) -> None:
    engine = made(device)
    slots = [engine.open() for _ in range(7)]
    assert [slot.place for slot in slots] == list(range(7))
    for index in (4, 2):
        engine.close(slots[index])
    assert [engine.open().place for _ in range(3)] == [2, 4, 7]


@pytest.mark.parametrize("restart", range(TAIL))
@pytest.mark.parametrize("bucket", [1, 3])
def test_a_tail_agrees_with_what_is_settled_later(device: str, bucket: int, restart: int) -> None:
    engine = made(device, bucket=bucket)
    slot = engine.open()
    inputs = windows(2 * RING, restarts=[15 + restart])
    for step in inputs[:15]:
        commit(engine, {slot: step})
    tail = extend(engine, {slot: inputs[15 : 15 + TAIL]})[slot]
    assert_close(tail, [commit(engine, {slot: step})[slot] for step in inputs[15 : 15 + TAIL]])
    assert_close(tail, by_the_model(inputs[: 15 + TAIL])[15:], CLOSE if device == "cpu" else GPU_CLOSE)


@pytest.mark.parametrize("restart", [-1, 2, 3])
@pytest.mark.parametrize("depth", range(TAIL))
def test_a_tail_may_change_from_any_window_on(device: str, depth: int, restart: int) -> None:
    one, other = windows(TAIL, restarts=[1, depth]), windows(TAIL, restarts=[1, restart], seed=1)
    engine, fresh = made(device), made(device)
    slot, plain = engine.open(), fresh.open()
    first = extend(engine, {slot: one})[slot]
    changed = extend(engine, {slot: other[depth:]})[slot]
    assert_close(changed, extend(fresh, {plain: [*one[:depth], *other[depth:]]})[plain][depth:], 1e-6)
    assert np.abs(np.array(changed) - first[depth:])[:, 0].min() > 1e-3
    finals = [settle(engine, [slot])[slot] for _ in range(TAIL)]
    assert_close(finals, [*first[:depth], *changed])


def test_what_was_after_the_windows_that_are_given_is_forgotten(device: str) -> None:
    engine = made(device)
    slot = engine.open()
    extend(engine, {slot: windows(TAIL)})
    extend(engine, {slot: windows(1, first=1)})
    with pytest.raises(ValueError, match=r"^steps.seq: 3, expected 0 to 2; "):
        extend(engine, {slot: windows(1, first=3)})
    assert [len(settle(engine, [slot])) for _ in range(2)] == [1, 1]
    with pytest.raises(ValueError, match=r"^slots: .*nothing to settle; "):
        settle(engine, [slot])


@pytest.mark.parametrize("bucket", [1, 3])
@pytest.mark.parametrize("ahead", [1, 3])
def test_streaming_is_the_model_called_once_over_each_utterance(device: str, bucket: int, ahead: int) -> None:
    engine, first = made(device, bucket=bucket), 7
    # Utterances of 6, which is max_steps, of 1, of 13, and so on; each session begins them elsewhere.
    sessions = [windows(5 * RING, first=first, restarts=[13, 14, 27, 31 + who, 60, 66], seed=who) for who in range(3)]
    slots = [engine.open() for _ in sessions]
    found: list[list[Row]] = [[], [], []]
    for seq in range(5 * RING):
        extend(engine, {slot: steps[seq : seq + ahead] for slot, steps in zip(slots, sessions, strict=True)})
        for who, row in enumerate(settle(engine, slots).values()):
            found[who].append(row)
    for finals, steps in zip(found, sessions, strict=True):
        assert_close(finals, by_the_model(steps), CLOSE if device == "cpu" else GPU_CLOSE)


@pytest.mark.parametrize("there", DEVICES)
def test_a_session_goes_on_on_another_engine(device: str, there: str, tmp_path: Path) -> None:
    here, other = made(device), made(there)
    inputs = windows(RING + 12, first=3, restarts=[RING + 1])
    other.open()
    old = [here.open() for _ in range(2)][1]
    for step in inputs[:RING]:
        commit(here, {old: step})
    extend(here, {old: windows(TAIL, first=3 + RING, seed=1)})
    here.state(old).save(tmp_path / "state.safetensors")
    new, neighbour = other.open(State.load(tmp_path / "state.safetensors", there)), other.open()
    extend(other, {neighbour: windows(TAIL)})
    assert bits(other.state(new)) == bits(here.state(old))
    found = []
    for engine, slot in ((here, old), (other, new)):
        tail = extend(engine, {slot: inputs[RING : RING + TAIL]})[slot]
        found.append(tail + [commit(engine, {slot: step})[slot] for step in inputs[RING:]])
    if device == there:
        assert found[0] == found[1]
    assert_close(found[0], found[1], GPU_CLOSE)


def test_a_state_that_was_taken_stays_as_it_is_and_may_be_opened_in_any_slot(device: str) -> None:
    engine, inputs = made(device), windows(RING + 5)
    slot = engine.open()
    for step in inputs[:RING]:
        commit(engine, {slot: step})
    taken = engine.state(slot)
    before = bits(taken)
    expected = [commit(engine, {slot: step})[slot] for step in inputs[RING:]]
    assert bits(taken) == before
    copies = [engine.open(taken) for _ in range(4)]
    found = [commit(engine, dict.fromkeys(copies, step)) for step in inputs[RING:]]
    for copy in copies:
        assert_close([each[copy] for each in found], expected)


def test_a_session_may_move_before_its_first_window(device: str) -> None:
    engine, other = made(device), made(device)
    slot = other.open(engine.state(engine.open()))
    assert [commit(other, {slot: step})[slot] for step in windows(4)] == alone(made(device), windows(4))


@pytest.mark.parametrize(
    ("changes", "tail"),
    [({}, TAIL + 1), ({"hidden": 8}, TAIL), ({"max_steps": 7}, TAIL), ({"masking": "features"}, TAIL)],
    ids=["tail", "hidden", "max_steps", "masking"],
)
def test_a_state_of_another_model_or_tail_is_refused(device: str, changes: dict, tail: int) -> None:
    other, engine = made(device, config=replace(CONFIG, **changes), tail=tail), made(device)
    slot = other.open()
    commit(other, {slot: window(0)})
    with pytest.raises(ValueError, match=r"^state: [\w.]+ is (\(.*\)|None), expected (\(.*\)|None); .*$") as caught:
        engine.open(other.state(slot))
    assert "\n" not in str(caught.value)
    assert alone(engine, windows(4)) == alone(made(device), windows(4))


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler here, which torch.compile needs")
def test_a_compiled_engine_gives_the_same_but_for_the_last_digits(device: str) -> None:
    inputs = windows(12, restarts=[0, 6])
    engine = made(device, bucket=1, compile=True)
    assert_close(alone(engine, inputs), alone(made(device, bucket=1), inputs))
    slot = engine.open()
    assert_close(extend(engine, {slot: inputs[:TAIL]})[slot], alone(engine, inputs[:TAIL]))


def test_what_cannot_be_compiled_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> Callable[..., object]:
        def call(*_: object) -> None:
            raise RuntimeError("no compiler found\nand more")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    engine = made("cpu", compile=True)
    with pytest.raises(UsageError) as caught:
        engine.open()
    assert str(caught.value) == (
        "PyTorch cannot compile the model here (no compiler found); install a C++ compiler (g++), or set model.compile=false"
    )


def test_the_largest_inputs_do_not_spoil_a_state(device: str) -> None:
    engine = made(device, bucket=1)
    slot, signs = engine.open(), np.random.default_rng(0).choice([-1.0, 1.0], size=(3, WIDTH))
    for seq, sign in enumerate(signs):
        commit(engine, {slot: Step(seq, seq == 0, (sign * 1e6).astype(np.float32))})
    assert np.isfinite(commit(engine, {slot: window(3)})[slot]).all()
    assert_close([commit(engine, {slot: window(4, restart=True)})[slot]], alone(made(device, bucket=1), [window(4)]))


def test_sessions_of_a_bucket_share_a_call(device: str) -> None:
    engine, calls = counted(device, bucket=3)
    slots = [engine.open() for _ in range(4)]
    extend(engine, {slot: windows(1 + who, seed=who) for who, slot in enumerate(slots)})
    assert sorted(calls) == [3, 4]
    calls.clear()
    settle(engine, slots)
    assert calls == [1, 1]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_a_captured_graph_computes_what_its_calls_do() -> None:
    ticks: list[list[Move]] = [[(0, [0] * (1 + seq % TAIL)), SETTLE, None] for seq in range(RING)]
    ticks += [[SETTLE, SETTLE, SETTLE]] * RING
    captured, eager = (play(made("cuda", graphs=graphs), ticks) for graphs in (True, False))
    for one, other in zip(captured, eager, strict=True):
        assert_close(one.finals, other.finals, 1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("graphs", [True, False])
def test_cuda_agrees_with_the_cpu(graphs: bool) -> None:
    inputs = windows(3 * RING, restarts=[9, 30])
    assert_close(alone(made("cuda", graphs=graphs), inputs), alone(made("cpu"), inputs), GPU_CLOSE)
    tails = []
    for engine in (made("cuda", graphs=graphs), made("cpu")):
        slot = engine.open()
        tails.append(extend(engine, {slot: inputs[:TAIL]})[slot])
    assert_close(tails[0], tails[1], GPU_CLOSE)


def test_evaluation_is_deterministic(device: str) -> None:
    model = CausalMMLatch.untrained(CONFIG).train()
    engine = Engine(model, torch.device(device), tail=TAIL)
    found = set()
    for _ in range(50):
        slot = engine.open()
        tail = extend(engine, {slot: windows(3)})[slot]
        finals = [settle(engine, [slot])[slot] for _ in range(3)]
        found.add(str(tail + finals))
        engine.close(slot)
    assert len(found) == 1


@pytest.mark.parametrize("masking", ["projection", "features"])
def test_estimates_have_the_whole_masks_if_asked(device: str, masking: Literal["projection", "features"]) -> None:
    config = replace(CONFIG, masking=masking)
    columns = [CONFIG.hidden] * 3 if masking == "projection" else [CONFIG.text, CONFIG.audio, CONFIG.vision]
    engine = made(device, config=config, masks=True)
    slots = [engine.open() for _ in range(4)]
    for found in (engine.extend(slots, packed([windows(3, seed=who) for who in range(4)])), engine.settle(slots)):
        assert found.masks.shape == (*found.sentiment.shape, sum(columns))
        assert ((found.masks > 0) & (found.masks < 1)).all()
        means = [lane.mean(-1) for lane in np.split(found.masks, np.cumsum(columns)[:-1], axis=-1)]
        np.testing.assert_allclose(np.stack(means, -1), found.weights, atol=1e-6)
        assert len(np.unique(found.weights.round(6))) > 6
    plain = made(device, config=config)
    estimates = plain.extend([plain.open()], packed([windows(2)]))
    assert (estimates.masks.shape, estimates.weights.shape) == ((1, 2, 0), (1, 2, 3))


def spoilt(value: float) -> Callable[[Steps], Steps]:
    def change(steps: Steps) -> Steps:
        inputs = steps.inputs.copy()
        inputs[-1, 0, 3] = value
        return replace(steps, inputs=inputs)

    return change


def moved(**by: int) -> Callable[[Steps], Steps]:
    return lambda steps: replace(
        steps, **{name: getattr(steps, name) + np.array([0, 0, 0, change]) for name, change in by.items()}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda steps: replace(steps, inputs=steps.inputs[..., 1:]), r"steps\.inputs: float32 \(4, 2, 23\), expected .*24"),
        (lambda steps: replace(steps, inputs=steps.inputs.astype(np.float64)), r"steps\.inputs: float64 .*, expected float32 "),
        (lambda steps: replace(steps, restart=steps.restart.astype(np.int8)), r"steps\.restart: int8 .*, expected bool "),
        (lambda steps: replace(steps, restart=steps.restart[:3]), r"steps\.restart: .*\(3, 2\), expected .*\(4, 2\)"),
        (lambda steps: replace(steps, restart=steps.restart[:, :1]), r"steps\.\w+: .*\(4, 2.*, expected .*\(4, 1"),
        (lambda steps: replace(steps, seq=steps.seq.astype(np.float32)), r"steps\.seq: float32 .*, expected int64 "),
        (lambda steps: replace(steps, count=steps.count[:3]), r"steps\.count: .*\(3,\), expected .*\(4,\)"),
        (spoilt(np.nan), r"steps\.inputs: NaN, or beyond ±1e\+06; "),
        (spoilt(np.inf), r"steps\.inputs: NaN, or beyond"),
        (spoilt(-np.inf), r"steps\.inputs: NaN, or beyond"),
        (spoilt(-1.001e6), r"steps\.inputs: NaN, or beyond"),
        (moved(seq=4), r"steps\.seq: 9, expected 3 to 8"),
        (moved(seq=-3), r"steps\.seq: 2, expected 3 to 8"),
        (moved(seq=3), r"steps: a tail of 7 windows, and the engine keeps 5"),
        (moved(count=-2), r"steps\.count: 0 to 2, expected 1 to "),
        (moved(count=1), r"steps\.count: 2 to 3, expected 1 to "),
    ],
)
def test_a_wrong_window_is_named_and_nothing_is_touched(device: str, change: Callable[[Steps], Steps], message: str) -> None:
    engine, twin = made(device), made(device)
    for each in (engine, twin):
        slots = [each.open() for _ in range(4)]
        for seq in range(3):
            commit(each, {slot: window(seq, seed=who) for who, slot in enumerate(slots)})
        extend(each, {slot: windows(TAIL if who == 3 else 2, first=3, seed=who) for who, slot in enumerate(slots)})
    before = states(engine, slots)
    work = change(packed([windows(2, first=5, seed=who + 4) for who in range(4)]))
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        engine.extend(slots, work)
    assert "\n" not in str(caught.value)
    assert states(engine, slots) == before
    for _ in range(2):
        assert settle(engine, slots) == settle(twin, slots)
    with pytest.raises(ValueError, match=r"^slots: .*nothing to settle; "):
        engine.settle(slots)
    for _ in range(TAIL - 2):
        assert settle(engine, slots[3:]) == settle(twin, slots[3:])
    assert states(engine, slots) == states(twin, slots)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda slots: [*slots[:3], slots[0]], "slots: .*twice"),
        (lambda slots: [*slots[:3], Slot(4, 1)], "slots: .*closed"),
        (lambda slots: [*slots[:3], Slot(99, 1)], "slots: .*closed"),
        (lambda _: [], "slots: none"),
        (lambda slots: [*slots[:3], slots[3]._replace(generation=1)], "slots: .*closed"),
    ],
)
def test_a_wrong_slot_is_named_and_nothing_is_touched(
    device: str, wrong: Callable[[list[Slot]], list[Slot]], message: str
) -> None:
    engine = made(device)
    slots = [engine.open() for _ in range(4)]
    tails = {slot: windows(3, seed=who) for who, slot in enumerate(slots)}
    extend(engine, tails)
    before = states(engine, slots)
    for use in (engine.settle, lambda wrong: engine.extend(wrong, packed([windows(1, seed=9)] * 4))):
        with pytest.raises(ValueError, match=f"^{message}") as caught:
            use(wrong(slots))
        assert "\n" not in str(caught.value)
        assert states(engine, slots) == before
    untouched = made(device)
    extend(untouched, {untouched.open(): tail for tail in tails.values()})
    assert settle(engine, slots) == settle(untouched, slots)


def test_nothing_is_settled_if_one_has_nothing_to_settle(device: str) -> None:
    engine = made(device)
    slots = [engine.open() for _ in range(4)]
    extend(engine, {slot: windows(2) for slot in slots[:3]})
    before = states(engine, slots)
    with pytest.raises(ValueError, match=r"^slots: .*nothing to settle; .*$"):
        engine.settle(slots)
    assert states(engine, slots) == before


@pytest.mark.parametrize(("bucket", "tail"), [(0, 1), (1, 0), (-1, 5)])
def test_an_engine_of_nothing_is_refused(bucket: int, tail: int) -> None:
    with pytest.raises(ValueError, match=f"^bucket: {bucket}, tail: {tail}; both must be at least 1$"):
        made("cpu", bucket=bucket, tail=tail)


def test_a_device_without_memory_says_for_how_many_it_was_enough(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    engine = made(device)
    slots = [engine.open() for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr("stream.engine.Bucket", full)
        with pytest.raises(UsageError, match=f"^{device}.* no memory for more than 3 sessions; .*$"):
            engine.open()
    assert engine.open().place == 3
    assert len(commit(engine, {slot: window(0) for slot in slots})) == 3


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:x", "", "mps", "meta"])
def test_an_unknown_device_is_named_with_those_that_are_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected cpu, cuda or cuda:N"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="no NVIDIA GPU") as caught:
        resolve_device("cuda")
    assert "\n" not in str(caught.value)
