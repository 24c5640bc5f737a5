"""Launch the failure monitor for two USB cameras, through usb_cam or v4l2_camera.

    ros2 launch ifailsense_ros usb_cameras.launch.py detector:=/path/to/checkpoint

All arguments of monitor.launch.py hold here as well; --show-args lists them. How to start the
drivers so that the names fit: docs/rigs.md.
"""

from ifailsense_ros.ros.rigs import rig_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The monitor's launch file with this rig's defaults."""
    return rig_description("usb_cameras")
