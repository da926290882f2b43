"""Corpora to features: `python -m train.prepare`.

What is there already, of the same input by the same extractors, is not made again: it may be stopped at any time and run again.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from stream.config import AsrConfig, Config
from stream.errors import UsageError
from train import command
from train.data import CORPORA, read_corpus
from train.errors import DataError, TrainError
from train.features import Extractors, Features, NoFeatures, contract
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


class Shard(NamedTuple):
    """Items that are kept together."""

    digest: str
    items: Sequence[Item]


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
        "--jobs", type=int, metavar="N", default=os.cpu_count() or 1, help="processes (default: one for each processor)"
    )
    given = options.parse_args(arguments)

    def work() -> None:
        if given.jobs < 1:
            raise UsageError(f"--jobs {given.jobs}: must be 1 or more")
        prepare(given.what, given.data, Store(given.out), Config(asr=AsrConfig(engine=given.asr)), jobs=given.jobs)

    return command.run(work, stopped="run it again to go on from here")


def prepare(what: Sequence[str], data: Path, store: Store, config: Config, *, jobs: int) -> None:
    """Extract what is not there yet, and write the manifests.

    Args:
        what: Corpora, and media files; all corpora that `data` has if there are none.
        data: Where the corpora are.
        store: Where the features go.
        config: How windows are made, and by whom words are recognised.
        jobs: How many processes.

    Raises:
        DataError: A corpus is missing or damaged.
        TrainError: Something cannot be written.
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
        _extract(corpus, [shard for shard in shards if not store.shard(shard.digest).exists()], store, config, jobs)
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
        yield Shard(digest([part for item in chosen for part in _made_from(item, config)]), chosen)


def _made_from(item: Item, config: Config) -> tuple[bytes, bytes]:
    """What an item's features are a function of; a file that is not there has none, and its name says which it is."""
    try:
        source = source_bytes(item.content)
    except DataError as error:
        source = str(error).encode()
    return contract(item.content, config).encode(), source


def _extract(corpus: str, shards: Sequence[Shard], store: Store, config: Config, jobs: int) -> None:
    if not shards:
        return
    # A fresh process each: MediaPipe and PocketSphinx do not outlive a fork.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(min(jobs, len(shards)), context, initializer=_begin, initargs=(config, store)) as pool,
        tqdm(total=sum(len(shard.items) for shard in shards), desc=corpus, unit="item", disable=None) as bar,
    ):
        running = {pool.submit(_extract_shard, shard): shard for shard in shards}
        try:
            for done in as_completed(running):
                done.result()
                bar.update(len(running[done].items))
        except BrokenProcessPool as error:
            raise TrainError(f"{corpus}: a process was killed, perhaps for want of memory; try fewer with --jobs") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_extractors: Extractors
_store: Store


def _begin(config: Config, store: Store) -> None:
    """In each process, once: a pool has no other place to keep what is costly to load."""
    global _extractors, _store
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _extractors, _store = Extractors(config), store


def _end_with_parent() -> None:
    """A parent that was killed has not told its pool, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _extract_shard(shard: Shard) -> None:
    found: list[Features | str] = []
    for item in shard.items:
        try:
            found.append(_extractors.features(item.content))
        except (NoFeatures, DataError) as error:
            found.append(str(error))
    _store.write_shard(shard.digest, found)


def _entries(shard: Shard, store: Store) -> Iterator[Entry]:
    failures = store.read_failures(shard.digest)
    for place, item in enumerate(shard.items):
        failure = failures.get(place)
        yield Entry(item.id, item.split, item.label, item.sentiment, None if failure else shard.digest, place, failure)


if __name__ == "__main__":
    sys.exit(main())
