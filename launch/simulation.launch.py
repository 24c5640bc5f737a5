"""Launch the failure monitor for a simulator, or for bags played with --clock.

    ros2 launch ifailsense_ros simulation.launch.py
    ros2 bag play bags/demo/test-00-success --clock 100

All arguments of monitor.launch.py hold here as well; --show-args lists them. See docs/rigs.md.
"""

from ifailsense_ros.ros.rigs import rig_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The monitor's launch file with this rig's defaults."""
    return rig_description("simulation")
