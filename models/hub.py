"""Fetching from the Hugging Face hub: the one place that knows it, and only once something is to be fetched."""

import re
from collections.abc import Sequence
from pathlib import Path

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_PATIENCE_S = 10.0


class NotFetchedError(Exception):
    """Files cannot be had; the text is one line: what is wrong, what was expected, what to do."""


def fetch(location: str, files: Sequence[str]) -> Path:
    """The folder with files of a repository, all of one commit, from the hub or from its cache on this machine.

    If the hub does not answer, what was fetched before is taken.
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
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError as error:
        raise NotFetchedError(
            f"{location}: fetching needs huggingface_hub; pip install huggingface_hub, or give a folder"
        ) from error

    def download(*, cached: bool) -> Path:
        """The first file as of the revision; then the others as of its commit, after which the hub names its folder."""
        first = Path(hf_hub_download(repository, files[0], revision=revision or None, local_files_only=cached))
        for name in files[1:]:
            hf_hub_download(repository, name, revision=first.parent.name, local_files_only=cached)
        return first.parent

    try:
        try:
            # Asked once and not for long; the download itself would try again for minutes.
            get_hf_file_metadata(hf_hub_url(repository, files[0], revision=revision or None), timeout=_PATIENCE_S)
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError):
            raise
        except (errors.HTTPError, OSError) as error:
            try:
                return download(cached=True)
            except errors.LocalEntryNotFoundError:
                raise error from None
        return download(cached=False)
    except errors.GatedRepoError:
        reason = "its owner must let you in, and you must be logged in"
    except errors.RepositoryNotFoundError:
        reason = "there is no such repository, or one must be logged in to see it"
    except errors.RevisionNotFoundError:
        reason = f"it has no revision {revision or 'main'!r}"
    except errors.RemoteEntryNotFoundError:
        reason = f"it lacks one of {', '.join(files)}"
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    raise NotFetchedError(f"{location}: cannot be fetched from the hub ({reason}); check the name, or give a folder")
