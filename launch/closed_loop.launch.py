"""Launch a simulated robot that errs, the monitor, and a planner that listens to it.

    ros2 launch ifailsense_ros closed_loop.launch.py
    ros2 launch ifailsense_ros closed_loop.launch.py seed:=3 count:=5 rate:=2.0

Watch /exo/image/compressed, /gripper/image/compressed and /monitor/montage in RViz, rqt or
Foxglove; the robot prints each task's truth. Needs MuJoCo and OpenGL: see docs/closed_loop.md.
"""

from launch.actions import DeclareLaunchArgument, Shutdown
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

PACKAGE = "ifailsense_ros"

# Name, default, description, choices (None: any text).
ARGUMENTS = [
    ("detector", "sim-tiny", "Checkpoint of the monitor (name, folder, module:callable).", None),
    ("split", "dev", "Whose scenes and sentences.", ["train", "validation", "dev", "test"]),
    ("seed", "0", "Base seed of the scenes.", None),
    ("first", "0", "Number of the first task.", None),
    ("count", "0", "Tasks; 0: no end.", None),
    ("rate", "1.0", "Times as fast as real, where the machine can.", None),
    ("max_tries", "3", "Attempts at one task; then the planner asks for help.", None),
    ("give_up_below", "0.0", "Of early warnings' p_success; 0.0: none gives up.", None),
    ("provisional_period", "0.5", "Seconds between early warnings.", None),
]

# Node -> argument it takes as a parameter -> type of that parameter.
PARAMETERS = {
    "robot": {"split": str, "seed": int, "first": int, "count": int, "rate": float},
    "monitor": {"detector": str, "provisional_period": float},
    "planner": {"max_tries": int, "give_up_below": float},
}

# Off-screen, one rasteriser thread; what the environment says already stays.
RENDERING = {"MUJOCO_GL": "egl", "LP_NUM_THREADS": "1"}


def given(node: str) -> dict[str, ParameterValue]:
    """A node's share of the arguments."""
    return {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in PARAMETERS[node].items()
    }


def generate_launch_description() -> LaunchDescription:
    """The arguments, and three nodes; all end with the robot, when its tasks are done."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    rig = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "rigs", "simulation.yaml"])
    robot = Node(
        package=PACKAGE,
        executable="ifailsense_sim_robot",
        name="robot",
        parameters=[given("robot")],
        additional_env={
            name: EnvironmentVariable(name, default_value=value)
            for name, value in RENDERING.items()
        },
        output="screen",
        on_exit=Shutdown(),
    )
    monitor = Node(
        package=PACKAGE,
        executable="ifailsense_monitor",
        name="monitor",
        parameters=[rig, given("monitor")],
        output="screen",
    )
    planner = Node(
        package=PACKAGE,
        executable="recovery_planner.py",
        name="planner",
        parameters=[given("planner")],
        output="screen",
    )
    return LaunchDescription([*arguments, robot, monitor, planner])
