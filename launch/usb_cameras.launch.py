"""Launch the failure monitor for two USB cameras, through usb_cam or v4l2_camera.

    ros2 launch ifailsense_ros usb_cameras.launch.py detector:=/path/to/checkpoint

All arguments of monitor.launch.py hold here as well; --show-args lists them. How to start the
drivers so that the names fit: docs/rigs.md.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare("ifailsense_ros")

# What differs from monitor.launch.py; the first declaration of an argument is the one that counts.
ARGUMENTS = [
    (
        "params_file",
        PathJoinSubstitution([SHARE, "config", "rigs", "usb_cameras.yaml"]),
        "Parameters of the monitor; copy the file and change what you need.",
        None,
    ),
    (
        "camera_reliability",
        "reliable",
        "Of the camera subscriptions: best_effort if your cameras are. Empty: as in params_file.",
        ["", "best_effort", "reliable"],
    ),
    ("exo_image", "exo/image_raw", "Topic of the exocentric camera, without /compressed.", None),
    (
        "gripper_image",
        "gripper/image_raw",
        "Topic of the gripper camera, without /compressed.",
        None,
    ),
]


def generate_launch_description() -> LaunchDescription:
    """The rig's defaults, then the monitor's launch file, which takes them."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    monitor = PathJoinSubstitution([SHARE, "launch", "monitor.launch.py"])
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(monitor))
    return LaunchDescription([*arguments, include])
