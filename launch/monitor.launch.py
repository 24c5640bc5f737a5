"""Launch the failure monitor.

    ros2 launch ifailsense_ros monitor.launch.py exo_image:=/front/image_raw \
        gripper_image:=/wrist/image_raw image_transport:=compressed

`ros2 launch ifailsense_ros monitor.launch.py --show-args` lists all arguments. Known rigs have
launch files of their own beside this one, with the same arguments and other defaults: see
docs/rigs.md.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

PACKAGE = "ifailsense_ros"

# Both spellings are in use; other launch files pass theirs on to this one.
BOOLEAN = ["true", "false", "True", "False"]

# Name, default, description, choices (None: any text). Where empty means "as in params_file", the
# node gets no value from here, and the file decides.
ARGUMENTS = [
    ("namespace", "", "Namespace of the node; its relative topics move along.", None),
    (
        "params_file",
        PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "monitor.yaml"]),
        "Parameters of the monitor; copy config/monitor.yaml and change what you need.",
        None,
    ),
    (
        "detector",
        "",
        "Checkpoint (name, folder, module:callable); empty: as in params_file.",
        None,
    ),
    (
        "image_transport",
        "",
        "How the cameras' pictures come; empty: as in params_file.",
        ["", "raw", "compressed"],
    ),
    (
        "camera_reliability",
        "",
        "Of the camera subscriptions. A reliable one hears no best effort camera; a best effort "
        "one may lose large pictures. Empty: as in params_file.",
        ["", "best_effort", "reliable"],
    ),
    ("exo_image", "exo/image", "Topic of the exocentric camera, without /compressed.", None),
    ("gripper_image", "gripper/image", "Topic of the gripper camera, without /compressed.", None),
    ("instruction", "instruction", "Topic of the instruction (std_msgs/String).", None),
    (
        "episode",
        "episode",
        "Topic of START, END and ABORT (ifailsense_ros/EpisodeEvent).",
        None,
    ),
    (
        "goal_status_action",
        "",
        "Action whose goals bound the episodes; empty: as in params_file.",
        None,
    ),
    (
        "autostart",
        "",
        "Configure and activate the node at once; empty: as in params_file.",
        ["", *BOOLEAN],
    ),
    (
        "use_sim_time",
        "false",
        "Take ROS time from /clock (simulation, bags with --clock).",
        BOOLEAN,
    ),
    ("enclave", "", "SROS2 enclave of the node, see docs/security.md; empty: none.", None),
    (
        "log_level",
        "info",
        "Least severity that is logged.",
        ["debug", "info", "warn", "error", "fatal"],
    ),
]


def monitor(context: LaunchContext) -> list[Node]:
    """The node, with the arguments filled in."""
    value = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    texts = ("detector", "image_transport", "goal_status_action")
    overrides = {name: value[name] for name in texts if value[name]}
    for name in ("autostart", "use_sim_time"):
        if value[name]:
            overrides[name] = value[name].lower() == "true"
    # Both spellings are remapped; the node subscribes the one that image_transport names.
    cameras = {
        f"{camera}/image{suffix}": value[f"{camera}_image"] + suffix
        for camera in ("exo", "gripper")
        for suffix in ("", "/compressed")
    }
    if value["camera_reliability"]:
        for topic in cameras.values():
            policies = f"qos_overrides.{resolved(topic, value['namespace'])}.subscription"
            overrides[f"{policies}.reliability"] = value["camera_reliability"]
    remappings = [
        *cameras.items(),
        *((topic, value[topic]) for topic in ("instruction", "episode")),
    ]
    ros_arguments = ["--log-level", value["log_level"]]
    if value["enclave"]:
        ros_arguments += ["--enclave", value["enclave"]]
    return [
        Node(
            package=PACKAGE,
            executable="ifailsense_monitor",
            name="monitor",
            namespace=value["namespace"],
            parameters=[value["params_file"], overrides],
            remappings=remappings,
            ros_arguments=ros_arguments,
            output="screen",
            emulate_tty=True,
        )
    ]


def resolved(topic: str, namespace: str) -> str:
    """A topic's full name: QoS override parameters go by that, after remapping."""
    return topic if topic.startswith("/") else "/" + f"{namespace}/{topic}".strip("/")


def generate_launch_description() -> LaunchDescription:
    """The arguments, and one monitor node."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=monitor)])
