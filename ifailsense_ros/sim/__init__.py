"""The simulated Franka: scenes, tasks, experts, failures, recorders (optional extra, needs mujoco).

Scenes, tasks, oracle, feasibility and instructions are plain numpy and import without mujoco.
"""

# Written into every data set row and bag: raise it when the same seed gives other pictures
# or other sentences.
GENERATOR_VERSION = "3"
