"""Who prepares a corpus: processes of this machine, or actors of Ray, on this machine or a cluster.

All run `Preparer`, which writes whole shards to where features are kept; so a shard has the same bytes whoever made it.
"""

import importlib
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.errors import ExtractorError
from stream.config import Config
from stream.errors import MMLatchError
from train.errors import DataError, TrainError
from train.features import Extractors, Features, NoFeatures
from train.items import Item
from train.store import Store


@dataclass(frozen=True)
class Shard:
    """Items that are kept together."""

    digest: str
    items: Sequence[Item]


class Preparer:
    """Makes shards, one after the other; what that needs is loaded once."""

    def __init__(self, config: Config, store: Store) -> None:
        """Extract as that configuration says, and write to that store."""
        self._extractors, self._store = Extractors(config), store

    def prepare(self, shard: Shard) -> None:
        """Write a shard; an item that fails is a reason in it.

        Raises:
            TrainError: It cannot be written.
            ExtractorError: An extractor cannot be had.
        """
        found: list[Features | str] = []
        for item in shard.items:
            try:
                found.append(self._extractors.features(item.content))
            except (NoFeatures, DataError) as error:
                found.append(str(error))
            except (TrainError, ExtractorError, MMLatchError):
                raise
            except Exception as error:  # whatever a library makes of one of many thousand files
                found.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        self._store.write_shard(shard.digest, found)


Executor = Callable[[Sequence[Shard], Config, Store, int, Callable[[int], object]], None]
"""Makes shards, at least one, with so many workers; tells after each how many items it has.

Raises what `Preparer.prepare` raises, and TrainError where a worker was killed or there are none to be had.
"""

# --- processes


def in_processes(shards: Sequence[Shard], config: Config, store: Store, jobs: int, made: Callable[[int], object]) -> None:
    """An `Executor`: processes of this machine, which end with this one."""
    # A fresh process each: MediaPipe and PocketSphinx do not outlive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(shards)), context, initializer=_begin, initargs=(config, store)) as pool:
        running = {pool.submit(_prepare, shard): shard for shard in shards}
        try:
            for done in as_completed(running):
                done.result()
                made(len(running[done].items))
        except BrokenProcessPool as error:
            raise TrainError("a process was killed, perhaps for want of memory; try fewer with --jobs") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_preparer: Preparer


def _begin(config: Config, store: Store) -> None:
    """In each process, once: a pool has no other place to keep what is costly to load."""
    global _preparer  # noqa: PLW0603
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _preparer = Preparer(config, store)


def _end_with_parent() -> None:
    """A parent that was killed has not told its pool, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _prepare(shard: Shard) -> None:
    _preparer.prepare(shard)


# --- Ray


def on_ray(shards: Sequence[Shard], config: Config, store: Store, jobs: int, made: Callable[[int], object]) -> None:
    """An `Executor`: actors of the Ray cluster that `RAY_ADDRESS` names, else of a Ray of its own, which listens on loopback.

    On a cluster corpora and features must be in folders that all machines see under the same names. An actor that is killed is
    begun anew by Ray, and gets its shard again.
    """
    ray = _ray(jobs)
    try:
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
            _Actor,
            fn_constructor_args=(config, store, Path.cwd()),
            batch_size=1,
            # No actor has shards waiting while another has nothing to do.
            compute=ray.data.ActorPoolStrategy(size=min(jobs, len(shards)), max_tasks_in_flight_per_actor=1),
        )
        for row in rows.iter_rows():
            if row["error"]:
                raise TrainError(row["error"])
            made(row["items"])
    except ray.exceptions.RayActorError as error:
        raise TrainError(
            "an actor of Ray could not begin, or was killed; every machine of the cluster needs mmlatch-live with its extras"
        ) from error
    finally:
        ray.shutdown()


class _Actor:
    """A `Preparer` as Ray Data calls it, with one shard at a time."""

    def __init__(self, config: Config, store: Store, folder: Path) -> None:
        self._preparer, self._folder = Preparer(config, store), folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """How many items there are now; or an error as text, since Ray would wrap it in its own."""
        (shard,), error = batch["shard"], ""
        try:
            os.chdir(self._folder)  # where relative paths, and the reasons that name them, are the same
            self._preparer.prepare(shard)
        except OSError as raised:
            error = f"{self._folder} cannot be had on every machine of the cluster: {raised.strerror or raised}; share it"
        except (TrainError, MMLatchError, ExtractorError) as raised:
            error = str(raised)
        return {"items": np.array([len(shard.items)]), "error": np.array([error])}


def _ray(jobs: int) -> Any:
    """Ray, connected to a cluster or one of its own."""
    address = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # or it sends statistics home
    if not address:
        # As on Windows and macOS: then all of it listens on loopback, else on all interfaces. It is read when Ray is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ModuleNotFoundError as error:
        raise TrainError("--executor ray needs Ray, which is not installed; run: pip install 'mmlatch-live[ray]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            ray.init("local", num_cpus=jobs, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at RAY_ADDRESS={address}" if address else "a Ray of its own"
        raise TrainError(f"{where} cannot be had: {str(error).splitlines()[0]}; is it running?") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
    return ray


EXECUTORS: dict[str, Executor] = {"local": in_processes, "ray": on_ray}
