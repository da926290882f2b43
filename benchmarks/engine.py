"""What does the engine cost: a window, a tail, a long context, many sessions; and which ways of computing were worth it?

    python -m benchmarks.engine [--compile] [--plot FILE.svg] [--json FILE]

The causal model in its default shape, at the live features' widths, with weights drawn at random; CPU figures on one thread. A
window is timed from host to host: inputs given as arrays, estimates got as arrays. At each tick a window is settled; with a
tail, a new one comes in at its end, and of those between either nothing has changed or everything has (as if a word was
recognised at the very beginning). Times are medians, the least of three runs; a line's baseline is named in it, and the ratio
is value by baseline. On a machine with an NVIDIA GPU its figures follow. Only torch, numpy and safetensors are needed, and
matplotlib for the plot.
"""

import platform
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.common import Figure, parser, show_figures, write
from models.causal import FLAGS
from models.layers import Attention, CausalLSTM
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig, MMLatch, MMLatchConfig
from stream.bucket import Steps
from stream.engine import Engine

SIZES = {"text": 768, "audio": 68, "vision": 116}  # the live lanes' pooled features
UTTERANCE = 120  # windows: 30 s
TICK_MS = 250.0
CPU = torch.device("cpu")
_INPUTS = np.random.default_rng(0).normal(size=(4096, sum(SIZES.values()) + FLAGS * len(SIZES))).astype(np.float32)

Times = npt.NDArray[np.float64]


def model(**changes: object) -> CausalMMLatch:
    """A model in the default shape but for `changes`."""
    return CausalMMLatch.untrained(CausalMMLatchConfig(**SIZES, **changes))  # type: ignore[arg-type]


def steps(slots: int, seq: int, count: int, draw: int = 0) -> Steps:
    """The same number of windows for all slots, in utterances of 120; another `draw` gives other inputs."""
    numbers = seq + np.arange(count)
    return Steps(
        seq=np.full(slots, seq),
        count=np.full(slots, count),
        restart=np.tile(numbers % UTTERANCE == 0, (slots, 1)),
        inputs=_INPUTS[(np.arange(slots)[:, None] + numbers + draw) % len(_INPUTS)],
    )


def durations(run: Callable[[int], object], times: int, *, warm: int) -> Times:
    """How long each call took, in ms, after some that do not count; a call is told its number."""
    found = np.empty(warm + times)
    for number in range(warm + times):
        start = time.perf_counter()
        run(number)
        found[number] = (time.perf_counter() - start) * 1e3
    return found[warm:]


def median(run: Callable[[], object], times: int = 300) -> float:
    """The median duration of a call, in ms: the least of three runs, as in `tick`."""
    with torch.inference_mode():
        return min(float(np.median(durations(lambda _: run(), times, warm=20))) for _ in range(3))


def ticks(engine: Engine, sessions: int, tail: int, times: int, *, changing: bool, warm: int = 20) -> Times:
    """How long each tick took, in ms, once there is a tail."""
    slots = np.array([engine.open() for _ in range(sessions)])
    for seq in range(tail):
        engine.extend(slots, steps(sessions, seq, 1))
    found = np.empty(warm + times)
    for number in range(warm + times):
        given = steps(sessions, number + 1, tail, draw=number) if tail and changing else steps(sessions, number + tail, 1)
        start = time.perf_counter()
        if not tail:
            engine.extend(slots, given)
        engine.settle(slots)
        if tail:
            engine.extend(slots, given)
        found[number] = (time.perf_counter() - start) * 1e3
    return found[warm:]


def tick(make: Callable[[], Engine], sessions: int, tail: int, times: int, *, changing: bool) -> float:
    """A tick's median, in ms: the least of three runs, since what else the machine does only adds."""
    return min(float(np.median(ticks(make(), sessions, tail, times, changing=changing))) for _ in range(3))


def published(length: int, times: int) -> float:
    """The median time of the published model over a whole utterance of that length, in ms."""
    whole = MMLatch.untrained(MMLatchConfig(**SIZES))
    sequences = {m: torch.randn(1, length, size) for m, size in SIZES.items()}
    return median(lambda: whole(sequences, torch.tensor([length])), times)


def one_session() -> tuple[list[Figure], Times, dict[int, float]]:
    """Figures of one session on the CPU; then for the plot times by context, and the published model's by length."""
    engine = partial(Engine, model(), CPU)
    whole = {length: published(length, 30) for length in (4, 30, 60, 90, UTTERANCE)}
    rerun = whole[UTTERANCE]
    runs = [ticks(engine(tail=16), 1, 0, 10 * UTTERANCE, changing=False, warm=UTTERANCE) for _ in range(3)]
    by_context = np.min([np.median(run.reshape(-1, UTTERANCE), 0) for run in runs], 0)
    settled = min(float(np.median(run)) for run in runs)
    live = tick(engine, 1, 0, 300, changing=False)
    steady = tick(partial(engine, tail=16), 1, 16, 300, changing=False)
    worst = tick(partial(engine, tail=16), 1, 16, 200, changing=True)
    short, long = by_context[2:6].mean(), by_context[-4:].mean()
    against = "; baseline: the published model run again over 120 windows"
    return (
        [
            Figure.against(rerun, f"one session, a settled window without tail{against}", settled, "ms"),
            Figure.against(rerun, f"the same in the engine's default shape (tails of up to 120){against}", live, "ms"),
            Figure.against(worst, "the same with a tail of 16, nothing changed; baseline: everything changed", steady, "ms"),
            Figure.against(17 * settled, "the same, everything changed; baseline: 17 windows one by one", worst, "ms"),
            Figure.against(float(short), "a settled window at 120 of context; baseline: at 4", float(long), "ms"),
        ],
        by_context,
        whole,
    )


def many_sessions() -> list[Figure]:
    """Figures of many sessions on one CPU thread."""
    figures = []
    network = model()
    for changing, what in ((False, "nothing changed"), (True, "everything changed")):
        one_by_one = 32 * TICK_MS / tick(partial(Engine, network, CPU, tail=6), 32, 6, 10, changing=changing)
        together = 1024 * TICK_MS / tick(partial(Engine, network, CPU, tail=6, bucket=32), 1024, 6, 15, changing=changing)
        name = f"sessions that keep up at 4 Hz, tail 6, {what} (1,024 held, buckets of 32); baseline: buckets of 1"
        figures.append(Figure.against(one_by_one, name, together, "sessions"))
    return figures


def choices() -> list[Figure]:
    """Ways of computing that were weighed, each against the one that was taken."""
    default = model()
    taken = tick(partial(Engine, default, CPU, tail=16), 1, 0, 300, changing=False)
    figures = [
        Figure.against(
            taken,
            f"a settled window with {what}; baseline: the default",
            tick(partial(Engine, model(**changes), CPU, tail=16), 1, 0, 200, changing=False),
            "ms",
        )
        for what, changes in (
            ("masks over the features", {"masking": "features"}),
            ("hidden 100", {"hidden": 100}),
            ("hidden 100 and masks over the features", {"hidden": 100, "masking": "features"}),
        )
    ]
    figures += [lstms(batch, length) for batch, length in ((1, 1), (32, 1), (64, 40))]
    figures += [attentions(batch) for batch in (1, 32)]
    return figures


def lstms(batch: int, length: int) -> Figure:
    """Six LSTMs as they are, against PyTorch's, one after the other."""
    side_by_side, apart = CausalLSTM(6, 64, 64), [nn.LSTM(64, 64, batch_first=True) for _ in range(6)]
    x, zero = torch.randn(6, batch, length, 64), torch.zeros(6, batch, 64)
    return Figure.against(
        median(lambda: side_by_side(x, zero, zero), 100),
        f"six LSTMs as six torch.nn.LSTM, B {batch}, T {length}; baseline: side by side",
        median(lambda: [lstm(each) for lstm, each in zip(apart, x, strict=True)], 100),
        "ms",
    )


def attentions(batch: int) -> Figure:
    """Three attentions as they are, against PyTorch's own."""
    attention = Attention(3, 64, dropout=0.0, keys=False).eval()
    queries, memory, bias = torch.randn(3, batch, 1, 64), torch.randn(3, batch, 144, 64), torch.zeros(3 * batch, 1, 144)

    def library() -> torch.Tensor:
        asked = torch.bmm(queries.flatten(1, 2), attention.queries).view_as(queries)
        found = scaled_dot_product_attention(asked, memory, memory, bias.unflatten(0, (3, batch)))
        return torch.bmm(found.flatten(1, 2), attention.values)

    return Figure.against(
        median(lambda: attention(queries, memory, bias)),
        f"three attentions by torch's scaled_dot_product_attention, B {batch}; baseline: written out",
        median(library),
        "ms",
    )


def compiled() -> list[Figure]:
    """The engine with torch.compile, against without."""
    network, figures = model(), []
    engine = partial(Engine, network, CPU, compile=True)
    start = time.perf_counter()
    engine(tail=16).open()
    figures.append(Figure("compiled: the first session opens after", time.perf_counter() - start, "s"))
    for what, tail, changing in (
        ("a settled window without tail", 0, False),
        ("with a tail of 16, nothing changed", 16, False),
        ("with a tail of 16, everything changed", 16, True),
    ):
        eager = tick(partial(Engine, network, CPU, tail=16), 1, tail, 200, changing=changing)
        faster = tick(partial(engine, tail=16), 1, tail, 200, changing=changing)
        figures.append(Figure.against(eager, f"compiled: one session, {what}; baseline: not compiled", faster, "ms"))
    eager, faster = (
        1024 * TICK_MS / tick(partial(each, tail=6, bucket=32), 1024, 6, 15, changing=False)
        for each in (partial(Engine, network, CPU), engine)
    )
    figures.append(
        Figure.against(eager, "compiled: sessions, as above, nothing changed; baseline: not compiled", faster, "sessions")
    )
    return figures


def gpu() -> list[Figure]:
    """Figures of the GPU."""
    device, figures = torch.device("cuda"), []
    network = model()
    eager = tick(partial(Engine, network, device, tail=16, graphs=False), 1, 0, 300, changing=False)
    graphs = tick(partial(Engine, network, device, tail=16), 1, 0, 1000, changing=False)
    figures.append(Figure.against(eager, "GPU: one session, a settled window; baseline: without graphs", graphs, "ms"))
    for changing, what in ((False, "nothing changed"), (True, "everything changed")):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found = ticks(Engine(network, device, tail=6, bucket=20_000), 20_000, 6, 20, changing=changing)
        name = f"GPU: sessions that keep up at 4 Hz, tail 6, {what} (20,000 held); baseline: those at the 95th percentile"
        at_worst, typical = (20_000 * TICK_MS / each for each in (np.percentile(found, 95), np.median(found)))
        figures.append(Figure.against(float(at_worst), name, float(typical), "sessions"))
        memory = torch.cuda.max_memory_allocated() / 2**30
        figures.append(Figure(f"GPU: memory of 20,000 sessions, tail 6, {what}", memory, "GiB"))
    return figures


def plot(path: Path, by_context: Times, whole: dict[int, float]) -> None:
    """Cost against context length."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot(list(whole), list(whole.values()), "o-", color="tab:red", label="published MMLatch, run again over the utterance")
    axes.plot(np.arange(1, UTTERANCE + 1), by_context, color="tab:blue", label="causal MMLatch, one settled window")
    axes.set(xlabel="windows of the utterance so far", ylabel="ms (one CPU thread)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def processor() -> str:
    """What the machine calls its processor."""
    try:
        text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Model name")), platform.machine()
    )


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__)
    options.add_argument(
        "--compile", action="store_true", help="also measure with torch.compile: needs a C++ compiler, takes a minute"
    )
    options.add_argument("--plot", metavar="FILE", type=Path, help="draw cost against context length (svg, png)")
    arguments = options.parse_args()
    print(f"{processor()}, one thread; torch {torch.__version__}")
    figures, by_context, whole = one_session()
    figures += many_sessions() + choices() + (compiled() if arguments.compile else [])
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
        figures += gpu()
    show_figures(figures)
    if arguments.plot:
        plot(arguments.plot, by_context, whole)
    write(arguments.json, figures)


if __name__ == "__main__":
    main()
