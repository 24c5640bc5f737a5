"""Pictures of the unseen world: an exocentric camera of ours and Meta-World's gripper camera."""

from __future__ import annotations

from collections.abc import Iterable

import mujoco
import numpy as np

from ..render import PICTURE_SIZE, make_renderer
from .arm import Arm
from .scenes import View

VIEWS = ("exo", "gripper")  # PoV row order: exocentric first

# Rendering costs what there are vertices, seen or not. These parts no camera of ours ever sees,
_NEVER_SEEN = ("pedestal", "right_arm_base_link", "head", "right_l0")
# and these the gripper's camera does not.
_BEHIND_GRIPPER = tuple(f"right_l{number}" for number in range(1, 7))
_HIDDEN_GROUP, _ARM_GROUP = 5, 3  # of geoms; Meta-World uses 0, 1 and 4


def _camera_of(view: View) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = view.lookat
    camera.azimuth, camera.elevation = view.azimuth, view.elevation
    camera.distance = view.distance
    return camera


class Camera:
    """An off-screen renderer of one scene; use as a context manager, or call ``close``.

    Sites are not drawn: they mark the goal of the task. Meta-World's gripper camera lies on its
    side, its picture is turned upright.

    Raises:
        ConfigError: if this machine has no usable OpenGL.
    """

    def __init__(self, arm: Arm, size: int = PICTURE_SIZE) -> None:
        self._arm = arm
        self._renderer = make_renderer(arm.model, size)
        self._options = [mujoco.MjvOption() for _ in VIEWS]
        for options, sees_arm in zip(self._options, (1, 0), strict=True):
            options.sitegroup[:] = 0
            options.geomgroup[_ARM_GROUP] = sees_arm
        for names, group in ((_NEVER_SEEN, _HIDDEN_GROUP), (_BEHIND_GRIPPER, _ARM_GROUP)):
            bodies = [arm.model.body(name).id for name in names]
            parts = np.isin(arm.model.geom_bodyid, bodies) & (arm.model.geom_group <= 1)
            arm.model.geom_group[parts] = group

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def pictures(self, samples: Iterable[np.ndarray], view: View) -> list[list[np.ndarray]]:
        """Render stored samples.

        Args:
            samples: of `Arm.sample`.
            view: the exocentric camera.

        Returns:
            per view in `VIEWS` order, one RGB picture (H, W, 3) uint8 per sample.
        """
        out: list[list[np.ndarray]] = [[] for _ in VIEWS]
        for sample in samples:
            self._arm.show(sample)
            cameras = (_camera_of(view), "gripperPOV")
            for row, camera, options in zip(out, cameras, self._options, strict=True):
                self._renderer.update_scene(self._arm.data, camera, options)
                row.append(self._renderer.render().copy())
            out[1][-1] = np.ascontiguousarray(np.rot90(out[1][-1]))
        return out
