"""Meta-World's Sawyer in one of its scenes: put at a start, driven by hand targets, read out.

The hand hangs on a motion-capture body as in Meta-World: every control step moves that body, the
arm follows through a weld. Meta-World's own environments are not used: they draw start states by
task, show the goal, and stop for rewards.
"""

from __future__ import annotations

import importlib.resources
import importlib.util

import mujoco
import numpy as np

from ifailsense_ros.core.errors import ConfigError

from .scenes import SCENES, SceneStart
from .tasks import State

SUBSTEPS = 5
CONTROL_S = 0.0125
"""Length of a control step, seconds: five steps of MuJoCo at Meta-World's 2.5 ms."""
SAMPLE_EVERY = 8
"""Control steps between two stored states: 10 Hz."""
REACH = 0.01
"""What an action of 1 moves the hand's target by in one control step (m), as in Meta-World."""

_HAND_BOX = np.array([[-0.5, 0.40, -0.05], [0.5, 1.0, 0.5]])
_HAND_QUAT = (1.0, 0.0, 1.0, 0.0)
_WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)  # as Meta-World sets it
_SETTLE_STEPS = 45


def require_metaworld() -> None:
    """Say how to get Meta-World where it is not installed.

    Raises:
        ConfigError: if it is not.
    """
    if importlib.util.find_spec("metaworld") is None:
        raise ConfigError(
            "the unseen world needs Meta-World: pip install '.[unseen]' in the checkout"
        )


def _load(xml: str) -> mujoco.MjModel:
    require_metaworld()
    root = importlib.util.find_spec("metaworld").submodule_search_locations[0]
    return mujoco.MjModel.from_xml_path(f"{root}/assets/sawyer_xyz/sawyer_{xml}.xml")


class Arm:
    """One scene with the arm in it.

    Args:
        scene: a name of `SCENES`.

    Raises:
        ConfigError: if Meta-World is not installed.
    """

    def __init__(self, scene: str) -> None:
        self.spec = SCENES[scene]
        self.model = _load(self.spec.xml)
        self.model.vis.quality.shadowsize = 0  # Meta-World's 4096 map costs nine tenths of a frame
        for number in range(self.model.neq):
            if self.model.eq_type[number] == mujoco.mjtEq.mjEQ_WELD:
                self.model.eq_data[number] = _WELD
        self.data = mujoco.MjData(self.model)
        self._fixture = self.model.body(self.spec.fixture).id if self.spec.fixture else None
        self._joint = self._find_joint()
        self._free = self._find_free()
        if self._joint is not None:
            self.model.dof_frictionloss[self.model.jnt_dofadr[self._joint]] = self.spec.stiction
        self._start: SceneStart | None = None

    def _find_joint(self) -> int | None:
        name = self.spec.joint
        if name.startswith("body:"):
            return int(self.model.body(name[5:]).jntadr[0])
        return int(self.model.joint(name).id) if name else None

    def _find_free(self) -> int | None:
        """First qpos of the free object."""
        if not self.spec.free:
            return None
        return int(self.model.jnt_qposadr[self.model.body(self.spec.obj).jntadr[0]])

    @property
    def hand(self) -> np.ndarray:
        """Where the hand is (m), shape (3,)."""
        return self.data.body("hand").xpos.copy()

    @property
    def target(self) -> np.ndarray:
        """Where the hand is drawn to (m), shape (3,)."""
        return self.data.mocap_pos[0].copy()

    @property
    def opening(self) -> float:
        """How far the fingers are apart, 0..1 of 10 cm."""
        fingers = self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos
        return float(np.clip(np.linalg.norm(fingers) / 0.1, 0.0, 1.0))

    def reset(self, start: SceneStart) -> None:
        """Put everything at a start; the hand is open and at rest."""
        self._start = start
        mujoco.mj_resetData(self.model, self.data)
        if self._fixture is not None:
            self.model.body_pos[self._fixture] = start.fixture
        for _ in range(_SETTLE_STEPS):
            self._step(np.array(start.hand), -1.0)
            self._put(start)
        mujoco.mj_forward(self.model, self.data)

    def _put(self, start: SceneStart) -> None:
        if self._joint is not None:
            self.data.qpos[self.model.jnt_qposadr[self._joint]] = self.spec.sign * start.value
            self.data.qvel[self.model.jnt_dofadr[self._joint]] = 0.0
        if self._free is not None:
            at = self._free
            self.data.qpos[at : at + 7] = [*start.position, 1.0, 0.0, 0.0, 0.0]
            dof = self.model.jnt_dofadr[self.model.body(self.spec.obj).jntadr[0]]
            self.data.qvel[dof : dof + 6] = 0.0

    def _step(self, target: np.ndarray, grip: float) -> None:
        self.data.mocap_pos[0] = np.clip(target, *_HAND_BOX)
        self.data.mocap_quat[0] = _HAND_QUAT
        self.data.ctrl[:] = (grip, -grip)
        mujoco.mj_step(self.model, self.data, SUBSTEPS)

    def step(self, target: np.ndarray, grip: float) -> None:
        """One control step.

        Args:
            target: where the hand is drawn to (m), shape (3,); clipped to its box.
            grip: -1 opens the fingers, 1 closes them.
        """
        self._step(target, grip)
        mujoco.mj_forward(self.model, self.data)

    def state(self) -> State:
        """What the oracle looks at, now."""
        if self._joint is not None:
            angle = self.data.qpos[self.model.jnt_qposadr[self._joint]]
            return State(self.spec.sign * float(angle))
        body = self.data.body(self.spec.obj)
        position = body.xpos.copy()
        origin = np.array(self._start.fixture) * [1.0, 1.0, 0.0] + self.spec.rest
        value = float((position - origin) @ np.array(self.spec.axis))
        return State(value, tuple(float(c) for c in position), float(body.xmat[8]))

    def sample(self) -> np.ndarray:
        """What pictures are made from: qpos, then where the fixture stands; float32 (nq + 3,)."""
        return np.concatenate([self.data.qpos, self._start.fixture]).astype(np.float32)

    def show(self, sample: np.ndarray) -> None:
        """Put a stored sample on the stage; the physics goes on from nowhere after this."""
        if self._fixture is not None:
            self.model.body_pos[self._fixture] = sample[-3:]
        self.data.qpos[:] = sample[:-3]
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
