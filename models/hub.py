"""Fetching from the Hugging Face hub: the one place that knows it, and only once something is to be fetched."""

import re
from collections.abc import Sequence
from pathlib import Path

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class NotFetchedError(Exception):
    """Files cannot be had; the text is one line: what is wrong, what was expected, what to do."""


def fetch(location: str, files: Sequence[str]) -> Path:
    """The folder with files of a repository, from the hub's cache on this machine or from the hub.

    Source: https://huggingface.co/docs/huggingface_hub/guides/download

    Args:
        location: `owner/name`, or `owner/name@revision`, a revision being a branch, a tag or a commit.
        files: Names in the repository.

    Raises:
        NotFetchedError: There is no such repository, or it cannot be reached.
    """
    repository, _, revision = location.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise NotFetchedError(f"{location}: there is no such folder, nor is it a repository's name (owner/name)")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise NotFetchedError(
            f"{location}: fetching needs huggingface_hub; pip install huggingface_hub, or give a folder"
        ) from error
    try:
        paths = [Path(hf_hub_download(repository, name, revision=revision or None)) for name in files]
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise NotFetchedError(
            f"{location}: cannot be fetched from the hub ({reason}); check the name, or give a folder"
        ) from error
    return paths[0].parent
