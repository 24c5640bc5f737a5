"""Which cameras of a LeRobotDataset are the exocentric and the gripper one."""

from __future__ import annotations

from collections.abc import Sequence

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.readers.lerobot_meta import LerobotInfo

EXO_NAMES = (
    *("exo", "exterior_1_left", "exterior_image_1_left", "external"),  # DROID
    *("front", "front_rgb", "static", "rgb_static", "agentview", "agentview_image"),  # simulators
    *("third_person", "primary", "image_primary", "top", "cam_high", "high", "overhead"),
    *("base", "base_0", "scene", "main", "image", "side", "laptop"),
)
"""Usual names of an exocentric camera, the likeliest first."""

GRIPPER_NAMES = (
    *("gripper", "wrist_left", "wrist_image_left", "wrist", "wrist_rgb", "wrist_image"),
    *("rgb_gripper", "image_wrist", "cam_wrist", "wrist_0", "hand", "eye_in_hand"),
    *("robot0_eye_in_hand", "cam_right_wrist", "cam_left_wrist"),
)
"""Usual names of a camera at the gripper."""


def pick_cameras(info: LerobotInfo, exo: str | None, gripper: str | None) -> tuple[str, ...]:
    """Names of the exocentric and, where there is one, the gripper camera.

    Args:
        info: of the data set.
        exo: its key; None: by the usual names.
        gripper: its key; "none": one PoV; None: by the usual names.

    Raises:
        DataError: no such key, or none that is recognised.
    """
    there = ", ".join(sorted(info.cameras)) or "none"
    for option, key in (("exo", exo), ("gripper", gripper)):
        if key not in (None, "none") and key not in info.cameras:
            raise DataError(f"{info.root}: {option}={key}: no such camera (there are: {there})")

    def usual(names: Sequence[str], taken: str | None) -> str | None:
        by_name = {key.rpartition(".")[2]: key for key in info.cameras if key != taken}
        return next((by_name[name] for name in names if name in by_name), None)

    gripper = gripper or usual(GRIPPER_NAMES, exo)
    exo = exo or usual(EXO_NAMES, gripper)
    if exo is None:
        others = [key for key in info.cameras if key != gripper]
        if len(others) != 1:
            raise DataError(
                f"{info.root}: which camera is the exocentric one? give exo=KEY (and gripper=KEY) "
                f"in the spec; there are: {there}"
            )
        exo = others[0]
    return (exo,) if gripper in (None, "none") else (exo, gripper)
