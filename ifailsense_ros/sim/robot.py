"""The physics of the world: resetting it to a scene, inverse kinematics, moving the hand.

A recorded state is the simulator's ``qpos``, 35 numbers, and holds everything that a picture shows
(docs/simulation.md lists them): arm joints 0-6 (rad), fingers 7-8 (m), drawer 9, door 10, switch
11, button 12 (m), LED 13 (0 or 1), then x, y, z (m) and a quaternion (w, x, y, z) for the red, the
blue and the pink block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from .furniture import GLOW_ALPHA, LAMP_EMISSION, LAMP_RGBA
from .layout import COLOURS
from .look import DISTRACTOR_SHAPES, DISTRACTORS, Look
from .mjcf import build_xml
from .oracle import BlockState, WorldState, carried_blocks
from .scene import HomePose, Scene

TICK_S = 0.02  # control period
SAMPLE_TICKS = 5  # states are kept at 10 Hz
SAMPLE_S = TICK_S * SAMPLE_TICKS
FINGERS_OPEN = 0.04
FINGERS_CLOSED = 0.0

_ARM_START = np.array([0.0, -0.55, 0.0, -2.35, 0.0, 1.8, 0.785])
_TURN_SPEED = 1.9  # rad/s
_SETTLE_S = 0.06  # rest after each move
_JOINTS = ("drawer", "door", "switch", "button", "led")
# The button toggles the LED when it goes down by the first, once until it is back at the second.
_PRESSED, _RELEASED = 0.008, 0.004


@dataclass(frozen=True)
class Waypoint:
    """One step of a plan.

    ``move`` goes to ``position`` (m) and ``yaw`` (rad) of the tool centre point, at ``speed``
    (m/s); ``fingers`` (m per finger, None keeps them) is set at the step's start, or for
    ``grip`` is the step; ``wait`` holds still. ``duration`` (s) is for grip and wait. With
    ``release_at`` in (0, 1) a move opens the fingers after that share of its way.
    """

    kind: str
    tag: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    speed: float = 0.3
    fingers: float | None = None
    duration: float = 0.0
    release_at: float | None = None


def _pointing_down(yaw: float) -> np.ndarray:
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])


def move_ticks(step: Waypoint, position: Sequence[float], yaw: float) -> int:
    """Control periods that a move takes from a pose of the hand, the rest at its end included."""
    distance = math.dist(step.position, position)
    seconds = max(distance / step.speed, abs(step.yaw - yaw) / _TURN_SPEED, 0.1)
    return math.ceil(seconds / TICK_S) + hold_ticks(_SETTLE_S)


def hold_ticks(seconds: float) -> int:
    """Control periods that holding still takes."""
    return round(seconds / TICK_S)


class World:
    """A compiled model and its state; reused for any number of scenes.

    Args:
        picture_size: largest picture (pixels) a renderer of this model will make.
    """

    def __init__(self, picture_size: int = 224) -> None:
        self.model = mujoco.MjModel.from_xml_string(build_xml(picture_size))
        self.data = mujoco.MjData(self.model)
        self._scratch = mujoco.MjData(self.model)
        self._site = self.model.site("tcp").id
        self._block_qpos = {c: int(self.model.joint(c).qposadr[0]) for c in COLOURS}
        self._qpos = {n: int(self.model.joint(n).qposadr[0]) for n in _JOINTS}
        self._led_speed = int(self.model.joint("led").dofadr[0])
        plain = self.model.material("table_plain").id
        self._table_geoms = np.flatnonzero(self.model.geom_matid == plain)
        self._arm_range = self.model.jnt_range[:7]
        self._substeps = round(TICK_S / self.model.opt.timestep)
        self._target: tuple[np.ndarray, float] = (np.zeros(3), 0.0)
        self._ticks = 0
        self._pressed = False
        self.states: list[np.ndarray] = []

    # --- state

    def reset(self, scene: Scene) -> None:
        """Put the world into a scene's start state, at rest, with an empty record."""
        data = self.data
        mujoco.mj_resetData(self.model, data)
        data.qpos[:7] = _ARM_START
        data.qpos[7:9] = FINGERS_OPEN
        for colour, (x, y, z, yaw) in scene.blocks.items():
            at = self._block_qpos[colour]
            quat = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
            data.qpos[at : at + 7] = (x, y, z, *quat)
        for name in ("drawer", "door", "switch", "led"):
            data.qpos[self._qpos[name]] = getattr(scene, name)
        position = np.array(scene.home.position)
        data.qpos[:7] = self._solve(position, scene.home.yaw, _ARM_START, iterations=60)
        data.ctrl[:7] = data.qpos[:7]
        data.ctrl[7] = FINGERS_OPEN
        mujoco.mj_forward(self.model, data)
        for _ in range(40):
            mujoco.mj_step(self.model, data)
        data.time = 0.0
        self._target = (position, scene.home.yaw)
        self._ticks = 0
        self._pressed = False
        self.states = []
        self._sample()
        self.apply_look(scene.look)

    def apply_look(self, look: Look) -> None:
        """Write colours, light and camera of ``look`` into the model."""
        model = self.model
        table = model.material(f"table_{look.table_texture}").id
        model.geom_matid[self._table_geoms] = table
        model.mat_rgba[table, :3] = look.colours["table"]
        for name, colour in look.colours.items():
            if name != "table":
                model.mat_rgba[model.material(name).id, :3] = colour
        lamp = model.light("lamp").id
        position = np.array(look.light_position)
        model.light_pos[lamp] = position
        towards = np.array([0.5, 0.0, 0.0]) - position
        model.light_dir[lamp] = towards / np.linalg.norm(towards)
        model.light_diffuse[lamp] = look.light_diffuse
        model.vis.headlight.ambient[:] = look.ambient
        camera = model.camera("exo").id
        eye = np.array(look.camera_position)
        back = eye - np.array(look.camera_target)
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, np.column_stack([right, np.cross(back, right), back]).ravel())
        model.cam_pos[camera] = eye
        model.cam_quat[camera] = quat
        model.cam_fovy[camera] = look.camera_fov
        self._place_distractors(look)

    def _place_distractors(self, look: Look) -> None:
        for number in range(DISTRACTORS):
            for shape in DISTRACTOR_SHAPES:
                thing = self.model.geom(f"distractor{number}_{shape}").id
                self.model.geom_rgba[thing] = (0.0, 0.0, 0.0, 0.0)
        for number, distractor in enumerate(look.distractors):
            thing = self.model.geom(f"distractor{number}_{distractor.shape}").id
            self.model.geom_pos[thing, :2] = (distractor.x, distractor.y)
            self.model.geom_rgba[thing] = (*distractor.colour, 1.0)

    def light_lamps(self, qpos: np.ndarray) -> None:
        """Give bulb and LED the colours they have in a recorded state (qpos, shape (nq,))."""
        lit = {"bulb": qpos[self._qpos["switch"]] > 0, "led": qpos[self._qpos["led"]] > 0.5}
        for name, on in lit.items():
            lamp, glow = (self.model.material(n).id for n in (name, f"{name}_glow"))
            colour = LAMP_RGBA[name][bool(on)]
            self.model.mat_rgba[lamp] = colour
            self.model.mat_rgba[glow] = (*colour[:3], GLOW_ALPHA[bool(on)])
            self.model.mat_emission[[lamp, glow]] = LAMP_EMISSION[bool(on)]

    def state(self) -> WorldState:
        """The present state as the oracle sees it."""
        return self.state_at(self.data.qpos)

    def state_at(self, qpos: np.ndarray) -> WorldState:
        """The oracle's view of one recorded sample (qpos, shape (nq,))."""
        blocks = {}
        for colour, at in self._block_qpos.items():
            x, y, z = (float(v) for v in qpos[at : at + 3])
            w, a, b, c = (float(v) for v in qpos[at + 3 : at + 7])
            yaw = math.atan2(2 * (a * b + w * c), 1 - 2 * (b * b + c * c))
            blocks[colour] = BlockState(x, y, z, yaw, upright=1 - 2 * (a * a + b * b))
        joints = {name: float(qpos[at]) for name, at in self._qpos.items()}
        led = joints["led"] > 0.5
        return WorldState(blocks, joints["drawer"], joints["door"], joints["switch"], led)

    def carried(self, states: np.ndarray) -> frozenset[str]:
        """Colours of the blocks that were in the air somewhere in recorded states (n, nq)."""
        return carried_blocks(self.state_at(qpos) for qpos in states)

    def place_of(self, geom: str) -> np.ndarray:
        """Where a named geom is, shape (3,), metres."""
        return self.data.geom(geom).xpos.copy()

    @property
    def hand(self) -> HomePose:
        """Where the tool centre point was told to be."""
        position, yaw = self._target
        return HomePose(tuple(position.tolist()), float(yaw))

    @property
    def fingers(self) -> tuple[float, float]:
        """Opening (m per finger): as told, and as it is. They differ with something in between."""
        return float(self.data.ctrl[7]), float(self.data.qpos[7:9].mean())

    # --- motion

    def begin(self) -> None:
        """Start a new record here: the present state is its first sample."""
        mujoco.mj_kinematics(self.model, self.data)  # `place_of` is otherwise one step behind
        self.states = []
        self._sample()

    def run(self, plan: list[Waypoint]) -> np.ndarray:
        """Carry out a plan from the present state.

        Returns:
            qpos samples at 10 Hz since the reset or `begin`, the start included, float32 (n, nq).
        """
        for _ in self.play(plan):
            pass
        return np.stack(self.states)

    def play(self, plan: Iterable[Waypoint]) -> Iterator[np.ndarray]:
        """Carry out a plan sample by sample: each is given when it is reached, and whoever asks
        for no more stops the arm there. The plan's next step is asked for when the one before is
        done.
        """
        for step in plan:
            if step.kind != "move" and step.fingers is not None:
                self.data.ctrl[7] = step.fingers
            for _ in self._move(step) if step.kind == "move" else self._hold(step.duration):
                if self._ticks % SAMPLE_TICKS == 0:
                    yield self.states[-1]
        while self._ticks % SAMPLE_TICKS:
            self._tick()
            if self._ticks % SAMPLE_TICKS == 0:
                yield self.states[-1]

    def _tick(self) -> None:
        mujoco.mj_step(self.model, self.data, self._substeps)
        self._toggle_led()
        self._ticks += 1
        if self._ticks % SAMPLE_TICKS == 0:
            self._sample()

    def _toggle_led(self) -> None:
        data, at = self.data, self._qpos["led"]
        down = data.qpos[self._qpos["button"]]
        lit = data.qpos[at] > 0.5
        if down >= _PRESSED and not self._pressed:
            lit, self._pressed = not lit, True
        elif down <= _RELEASED:
            self._pressed = False
        data.qpos[at] = float(lit)
        data.qvel[self._led_speed] = 0.0

    def _sample(self) -> None:
        self.states.append(self.data.qpos.astype(np.float32))

    def _hold(self, seconds: float) -> Iterator[None]:
        for _ in range(hold_ticks(seconds)):
            self._tick()
            yield

    def _move(self, step: Waypoint) -> Iterator[None]:
        position, yaw = self._target
        goal, turn = np.array(step.position), step.yaw - yaw
        settle = hold_ticks(_SETTLE_S)
        ticks = move_ticks(step, position, yaw) - settle
        if step.fingers is not None:
            self.data.ctrl[7] = step.fingers
        arm = self.data.ctrl[:7].copy()
        for i in range(1, ticks + 1):
            share = i / ticks
            share = share * share * (3 - 2 * share)
            if step.release_at is not None and share >= step.release_at:
                self.data.ctrl[7] = FINGERS_OPEN
            arm = self._solve(position + share * (goal - position), yaw + share * turn, arm)
            self.data.ctrl[:7] = arm
            self._target = (position + share * (goal - position), yaw + share * turn)
            self._tick()
            yield
        self._target = (goal, step.yaw)
        for _ in range(settle):
            self._tick()
            yield

    def _solve(
        self, position: np.ndarray, yaw: float, arm: np.ndarray, iterations: int = 6
    ) -> np.ndarray:
        """Damped least squares from joint angles ``arm`` to a pose; returns joint angles (7,)."""
        model, scratch = self.model, self._scratch
        scratch.qpos[:] = self.data.qpos
        scratch.qpos[:7] = arm
        wanted = _pointing_down(yaw)
        jac = np.zeros((6, model.nv))
        for _ in range(iterations):
            mujoco.mj_kinematics(model, scratch)
            mujoco.mj_comPos(model, scratch)
            error = wanted @ scratch.site_xmat[self._site].reshape(3, 3).T
            turn = 0.5 * np.array(
                [error[2, 1] - error[1, 2], error[0, 2] - error[2, 0], error[1, 0] - error[0, 1]]
            )
            miss = np.r_[position - scratch.site_xpos[self._site], turn]
            if np.abs(miss).max() < 2e-4:
                break
            mujoco.mj_jacSite(model, scratch, jac[:3], jac[3:], self._site)
            arm_jac = jac[:, :7]
            inverse = np.linalg.inv(arm_jac @ arm_jac.T + 1e-4 * np.eye(6))
            # Drift towards the start posture in the null space keeps the elbow out of the way.
            rest = 0.05 * (_ARM_START - scratch.qpos[:7])
            change = arm_jac.T @ (inverse @ (miss - arm_jac @ rest)) + rest
            scratch.qpos[:7] += np.clip(change, -0.2, 0.2)
            scratch.qpos[:7] = np.clip(
                scratch.qpos[:7], self._arm_range[:, 0], self._arm_range[:, 1]
            )
        return scratch.qpos[:7].copy()
