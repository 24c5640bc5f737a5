"""A simulated robot that errs, and the person who asks it: `ifailsense_sim_robot`.

    python -m ifailsense_ros.ros.sim_robot --ros-args -p count:=3

What a robot has: the action `execute_instruction`, two cameras, the instruction and the boundaries
of each attempt. What a person does: says on `request` what is wanted, hears on `report` that it is
done or that help is needed, and lays out the next scene. Each task's truth goes to stdout, one JSON
object a line, where no planner reads it. Needs MuJoCo and OpenGL: docs/simulation.md.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from ifailsense_ros.ros import process


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until its tasks are done or a signal comes; returns the exit status."""
    argv = sys.argv if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return 0
    if importlib.util.find_spec("mujoco") is None:
        text = "the simulator needs MuJoCo: pip install '.[sim]' in the checkout"
        print(f"ifailsense_sim_robot: error: {text}", file=sys.stderr)
        return 2
    from ifailsense_ros.ros.sim_robot_node import SimRobot

    return process.run("ifailsense_sim_robot", SimRobot, argv)


if __name__ == "__main__":
    sys.exit(main())
