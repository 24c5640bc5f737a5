"""Message definitions for bags: ROS 2's and our own, without a ROS install."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ifailsense_ros.core.errors import BagError


@cache
def message_typestore() -> Any:
    """The rosbags type store of ROS 2 Jazzy's messages and our own.

    The same for all bags of a process: making it, and the deserializers that it compiles as they
    are asked for, takes longer than reading a short bag. Nobody adds to it.

    Raises:
        BagError: rosbags is not installed, or our .msg files are not where they should be.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise BagError(
            f"bags need rosbags, which cannot be imported ({error}): pip install rosbags"
        ) from error
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(_definitions_folder().glob("*.msg")):
        name = f"ifailsense_ros/msg/{path.stem}"
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), name))
    return store


def _definitions_folder() -> Path:
    """Our .msg files: inside an installed package, or at the root of the source tree."""
    package = Path(str(resources.files("ifailsense_ros")))
    for folder in (package / "interfaces" / "msg", package.parent / "msg"):
        if (folder / "EpisodeEvent.msg").is_file():
            return folder
    raise BagError(
        f"the .msg files of ifailsense_ros are not in {package}: the installation is incomplete, "
        "install it again"
    )
