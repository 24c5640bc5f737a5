"""Checkpoints by name: of this package, a folder, or `hub:<org>/<name>@<revision>`.

Only the last may use the network, and only for what the local cache lacks. No torch here: the
node's own process reads specs as well.
"""

from __future__ import annotations

import re
from pathlib import Path

from ifailsense_ros.core.checkpoint import CONFIG_FILE, CheckpointConfig, resolve_checkpoint
from ifailsense_ros.core.errors import CheckpointError, text_of

PREFIX = "hub:"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_SPEC = re.compile(rf"{PREFIX}({_PART}/{_PART})@({_PART}(?:/{_PART})*)")


def is_on_hub(spec: str | Path) -> bool:
    """Whether a spec means the hub; it may still be misspelled."""
    return str(spec).startswith(PREFIX)


def parse_spec(spec: str) -> tuple[str, str]:
    """Repository and revision of `hub:<org>/<name>@<revision>`.

    Raises:
        CheckpointError: not of that form. The revision is part of it: without one, the same
            setting would mean other weights tomorrow.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise CheckpointError(
            f"detector {text_of(spec)!r}: write hub:<org>/<name>@<revision>, the revision being a "
            "commit or a tag"
        )
    return match[1], match[2]


def find_checkpoint(spec: str | Path) -> Path:
    """Folder of a checkpoint; one on the hub is fetched where the local cache lacks it.

    Raises:
        CheckpointError: there is none, or it cannot be fetched.
    """
    return fetch_checkpoint(str(spec)) if is_on_hub(spec) else resolve_checkpoint(spec)


def fetch_checkpoint(spec: str) -> Path:
    """Folder, in the local cache, of a checkpoint on the hub: its settings and the files that they
    list, all of one commit, and nothing else of the repository.

    Raises:
        CheckpointError: cannot be fetched, or is no checkpoint.
    """
    repository, revision = parse_spec(spec)
    cached = _snapshot(repository, revision, [CONFIG_FILE], network=False)
    if cached is not None and (folder := _whole(repository, cached, network=False)) is not None:
        return folder
    try:
        settings = _snapshot(repository, revision, [CONFIG_FILE], network=True)
        if not (settings / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"{spec}: the repository holds no {CONFIG_FILE}; convert the authors' files with "
                "`ifailsense convert`"
            )
        folder = _whole(repository, settings, network=True)
    except CheckpointError:
        raise
    except Exception as error:  # the hub's client and the network raise many types
        raise CheckpointError(f"{spec}: cannot be fetched ({text_of(error)})") from None
    if folder is None:
        raise CheckpointError(
            f"{spec}: the repository, or what of it could be fetched, lacks files that its "
            f"{CONFIG_FILE} lists"
        )
    return folder


def cached_commit(repository: str, revision: str | None) -> str | None:
    """The commit that a tag or branch (None: main) was when its config.json was fetched; None where
    it was not.
    """
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def _whole(repository: str, settings: Path, *, network: bool) -> Path | None:
    """The folder with all listed files, of the commit that the settings are of; None if some are
    not there.
    """
    if not (settings / CONFIG_FILE).is_file():
        return None
    files = list(CheckpointConfig.from_json(settings).files)
    folder = _snapshot(repository, settings.name, [CONFIG_FILE, *files], network=network)
    is_whole = folder is not None and all((folder / name).is_file() for name in files)
    return folder if is_whole else None


def _snapshot(repository: str, revision: str, names: list[str], *, network: bool) -> Path | None:
    """The hub client's folder of a revision; None where it is not cached and may not be fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=names, local_files_only=not network
            )
        )
    except LocalEntryNotFoundError:
        if network:
            raise
        return None
