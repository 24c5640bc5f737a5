"""Launch the failure monitor.

    ros2 launch ifailsense_ros monitor.launch.py exo_image:=/front/image_raw \
        gripper_image:=/wrist/image_raw image_transport:=compressed

`ros2 launch ifailsense_ros monitor.launch.py --show-args` lists all arguments.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

PACKAGE = "ifailsense_ros"

ARGUMENTS = [
    ("namespace", "", "Namespace of the node; its relative topics move along."),
    (
        "params_file",
        PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "monitor.yaml"]),
        "Parameters of the monitor; copy config/monitor.yaml and change what you need.",
    ),
    ("detector", "", "Checkpoint (name, folder, module:callable); empty: as in params_file."),
    ("image_transport", "", "raw or compressed; empty: as in params_file."),
    ("exo_image", "exo/image", "Topic of the exocentric camera, without /compressed."),
    ("gripper_image", "gripper/image", "Topic of the gripper camera, without /compressed."),
    ("instruction", "instruction", "Topic of the instruction (std_msgs/String)."),
    ("episode", "episode", "Topic of START, END and ABORT (ifailsense_ros/EpisodeEvent)."),
    ("use_sim_time", "false", "Take ROS time from /clock (simulation, bags with --clock)."),
    ("log_level", "info", "debug, info, warn, error."),
]


def monitor(context: LaunchContext) -> list[Node]:
    """The node, with the arguments filled in."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    overrides = {name: value[name] for name in ("detector", "image_transport") if value[name]}
    overrides["use_sim_time"] = value["use_sim_time"].lower() in ("true", "1")
    # Both spellings are remapped; the node subscribes the one that image_transport names.
    remappings = [
        (f"{camera}/image{suffix}", value[f"{camera}_image"] + suffix)
        for camera in ("exo", "gripper")
        for suffix in ("", "/compressed")
    ]
    remappings += [(topic, value[topic]) for topic in ("instruction", "episode")]
    return [
        Node(
            package=PACKAGE,
            executable="ifailsense_monitor",
            name="monitor",
            namespace=value["namespace"],
            parameters=[value["params_file"], overrides],
            remappings=remappings,
            ros_arguments=["--log-level", value["log_level"]],
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """The arguments, and one monitor node."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=monitor)])
