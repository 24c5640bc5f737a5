"""Launch the failure monitor for a simulator, or for bags played with --clock.

    ros2 launch ifailsense_ros simulation.launch.py
    ros2 bag play bags/demo/test-00-success --clock 100

All arguments of monitor.launch.py hold here as well; --show-args lists them. See docs/rigs.md.
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
        PathJoinSubstitution([SHARE, "config", "rigs", "simulation.yaml"]),
        "Parameters of the monitor; copy the file and change what you need.",
        None,
    ),
    (
        "camera_reliability",
        "reliable",
        "Of the camera subscriptions: best_effort if your cameras are. Empty: as in params_file.",
        ["", "best_effort", "reliable"],
    ),
    (
        "use_sim_time",
        "true",
        "Take ROS time from /clock; false if nobody publishes it.",
        ["true", "false", "True", "False"],
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
