"""Known rigs: what their launch files set that monitor.launch.py does not.

A rig has a launch file (`launch/NAME.launch.py`, which only names it), parameters of the monitor
(`config/rigs/NAME.yaml`) and a row here. `launch` is imported where it is needed: it comes with a
ROS install and not from the package index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch import LaunchDescription

PACKAGE = "ifailsense_ros"

RIGS: dict[str, dict[str, str]] = {
    "droid_zed": {
        "exo_image": "zed_exo/zed_node/rgb/color/rect/image",
        "gripper_image": "zed_gripper/zed_node/rgb/color/rect/image",
    },
    "franka_realsense": {
        "exo_image": "camera/exo/color/image_raw",
        "gripper_image": "camera/gripper/color/image_raw",
    },
    "simulation": {"use_sim_time": "true"},
    "usb_cameras": {"exo_image": "exo/image_raw", "gripper_image": "gripper/image_raw"},
}
"""Rig -> argument of its launch file -> default, beside those that all rigs have."""

_OF_ALL = {"camera_reliability": "reliable"}

_ARGUMENTS: dict[str, tuple[str, list[str] | None]] = {
    "params_file": ("Parameters of the monitor; copy the file and change what you need.", None),
    "camera_reliability": (
        "Of the camera subscriptions: best_effort if your cameras are. Empty: as in params_file.",
        ["", "best_effort", "reliable"],
    ),
    "exo_image": ("Topic of the exocentric camera, without /compressed.", None),
    "gripper_image": ("Topic of the gripper camera, without /compressed.", None),
    "use_sim_time": (
        "Take ROS time from /clock; false if nobody publishes it.",
        ["true", "false", "True", "False"],
    ),
}
"""Argument -> description, choices (None: any text)."""


def parameters_file(rig: str) -> tuple[str, ...]:
    """Path of a rig's parameters in the package's share folder, in parts."""
    return ("config", "rigs", f"{rig}.yaml")


def arguments_of(rig: str) -> dict[str, tuple[str, str, list[str] | None]]:
    """Of a rig's launch file, without its params_file: name -> default, description, choices."""
    return {name: (value, *_ARGUMENTS[name]) for name, value in (_OF_ALL | RIGS[rig]).items()}


def rig_description(rig: str) -> LaunchDescription:
    """The rig's defaults, then the monitor's launch file, which takes them: the first declaration
    of an argument is the one that counts.

    Args:
        rig: one of `RIGS`.
    """
    from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch.substitutions import PathJoinSubstitution
    from launch_ros.substitutions import FindPackageShare

    from launch import LaunchDescription

    share = FindPackageShare(PACKAGE)
    parameters = PathJoinSubstitution([share, *parameters_file(rig)])
    rows = {"params_file": (parameters, *_ARGUMENTS["params_file"]), **arguments_of(rig)}
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, choices) in rows.items()
    ]
    monitor = PathJoinSubstitution([share, "launch", "monitor.launch.py"])
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(monitor))
    return LaunchDescription([*arguments, include])
