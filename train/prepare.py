"""Corpora to features: `python -m train.prepare`.

What is there already, of the same input by the same extractors, is not made again: it may be stopped at any time and run again.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from stream.config import AsrConfig, Config
from stream.errors import UsageError
from train import command
from train.data import CORPORA, read_corpus
from train.errors import DataError
from train.executors import EXECUTORS, Executor, Shard
from train.features import contract
from train.items import Clip, Item, digest, source_bytes
from train.store import Entry, Store

SHARD = 128  # items
_EXAMPLES = f"""\
examples:
  python -m train.prepare --data corpora --out features                  all corpora that are there
  python -m train.prepare mosi sst --data corpora --out features
  python -m train.prepare talk.mp4 --out features                        a file of your own, without a label

corpora: {", ".join(CORPORA)}; each in a folder of that name. What each needs: docs/training.md
"""


def main(arguments: list[str] | None = None) -> int:
    """Prepare corpora; 0 if all is well, 2 if something cannot be read or written."""
    options = command.parser("prepare", "Extract the features of corpora as a live session does.", _EXAMPLES)
    options.add_argument("what", nargs="*", metavar="CORPUS|FILE", help="default: every corpus that is in the data folder")
    command.add_data(options)
    options.add_argument("--out", type=Path, metavar="FOLDER", default=Path("features"), help="default: features/")
    options.add_argument(
        "--asr", choices=("sphinx", "whisper", "none"), default="sphinx", help="who hears words in media files"
    )
    options.add_argument(
        "--jobs", type=int, metavar="N", default=os.cpu_count() or 1, help="workers (default: one for each processor)"
    )
    options.add_argument(
        "--executor",
        choices=tuple(EXECUTORS),
        default="local",
        help="processes of this machine, or actors of Ray (RAY_ADDRESS)",
    )
    given = options.parse_args(arguments)

    def work() -> None:
        if given.jobs < 1:
            raise UsageError(f"--jobs {given.jobs}: must be 1 or more")
        config, executor = Config(asr=AsrConfig(engine=given.asr)), EXECUTORS[given.executor]
        prepare(given.what, given.data, Store(given.out), config, executor, jobs=given.jobs)

    return command.run(work, stopped="run it again to go on from here")


def prepare(what: Sequence[str], data: Path, store: Store, config: Config, executor: Executor, *, jobs: int) -> None:
    """Extract what is not there yet, and write the manifests.

    Args:
        what: Corpora, and media files; all corpora that `data` has if there are none.
        data: Where the corpora are.
        store: Where the features go.
        config: How windows are made, and by whom words are recognised.
        executor: Who makes the features.
        jobs: With how many workers.

    Raises:
        DataError: A corpus is missing or damaged.
        TrainError: Something cannot be written, or the executor cannot be had.
        ExtractorError: An extractor cannot be had.
    """
    chosen = list(dict.fromkeys(what)) or [name for name in CORPORA if (data / name).is_dir()]
    if not chosen:
        raise DataError(f"{data} has none of {', '.join(CORPORA)}; name the folder that has them with --data")
    corpora: dict[str, list[Item]] = {}
    for name in chosen:
        if name in CORPORA:
            corpora[name] = read_corpus(name, data / name)
        elif Path(name).is_file():
            if (stem := Path(name).stem) in (*CORPORA, *corpora):
                raise DataError(f"{name}: its features would be kept as {stem}, which is taken; give the file another name")
            corpora[stem] = [Item(Path(name).name, "test", "unlabelled", None, Clip(Path(name)))]
        else:
            raise DataError(f"{name}: neither a corpus ({', '.join(CORPORA)}) nor a file")
    for corpus, items in corpora.items():
        shards = list(_shards(corpus, items, config))
        if lacking := [shard for shard in shards if not store.shard(shard.digest).exists()]:
            with tqdm(total=sum(len(shard.items) for shard in lacking), desc=corpus, unit="item", disable=None) as bar:
                executor(lacking, config, store, jobs, bar.update)
        entries = [entry for shard in shards for entry in _entries(shard, store)]
        store.write_manifest(corpus, entries)
        failed = [entry for entry in entries if entry.failure]
        print(f"{corpus}: {len(entries)} items, {len(failed)} without features", file=sys.stderr)  # noqa: T201
        for reason in sorted({entry.failure or "" for entry in failed})[:5]:
            count = sum(entry.failure == reason for entry in failed)
            print(f"  {count}: {reason}", file=sys.stderr)  # noqa: T201


def _shards(corpus: str, items: Sequence[Item], config: Config) -> Iterator[Shard]:
    for begin in tqdm(range(0, len(items), SHARD), desc=f"{corpus}: reading", unit="shard", leave=False, disable=None):
        chosen = items[begin : begin + SHARD]
        yield Shard(digest(part for item in chosen for part in _made_from(item, config)), chosen)


def _made_from(item: Item, config: Config) -> tuple[bytes, bytes]:
    """What an item's features are a function of; a file that is not there has none, and its name says which it is."""
    try:
        source = source_bytes(item.content)
    except DataError as error:
        source = str(error).encode()
    return contract(item.content, config).encode(), source


def _entries(shard: Shard, store: Store) -> Iterator[Entry]:
    failures = store.read_failures(shard.digest)
    for place, item in enumerate(shard.items):
        failure = failures.get(place)
        yield Entry(item.id, item.split, item.label, item.sentiment, None if failure else shard.digest, place, failure)


if __name__ == "__main__":
    sys.exit(main())
