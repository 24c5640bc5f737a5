"""Montages on the page: inside it as data, or beside it in the results folder."""

from __future__ import annotations

import base64
import os
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from PIL import Image

INLINE_LIMIT = 64 * 2**20
"""Bytes of pictures that a page may hold before `auto` leaves them beside it."""

MODES = ("auto", "inline", "beside")
_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A montage that is there.

    Attributes:
        path: of the file.
        kind: its media type.
        width, height: pixels.
        size: bytes.
    """

    path: Path
    kind: str
    width: int
    height: int
    size: int

    def url(self, page_folder: Path | None) -> str:
        """For `src`: relative to the page's folder; None: the picture itself.

        Raises:
            OSError: the file has gone.
        """
        if page_folder is None:
            return f"data:{self.kind};base64,{base64.b64encode(self.path.read_bytes()).decode()}"
        relative = os.path.relpath(self.path, page_folder.resolve())
        return quote(PurePosixPath(*Path(relative).parts).as_posix(), errors="surrogateescape")


def find_picture(folder: Path, name: str) -> Picture | str:
    """The picture of a row.

    Args:
        folder: results folder.
        name: `Result.montage`; it may come from somebody else's file, so only pictures within the
            folder are taken.

    Returns:
        The picture, or why there is none.
    """
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        if root not in path.parents:
            return "lies outside of the results folder"
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:  # reads the head only
                kind, (width, height) = _TYPES.get(image.format or ""), image.size
        if kind is None:
            return "is neither JPEG nor PNG"
        return Picture(path, kind, width, height, path.stat().st_size)
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError, Warning, Image.DecompressionBombError):
        return "cannot be read as a picture"
