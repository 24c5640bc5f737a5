"""Pictures of recorded states: exocentric and wrist camera, and their one JPEG encoding."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import cv2
import mujoco
import numpy as np

from ifailsense_ros.core.errors import ConfigError

from .robot import World

CAMERAS = ("exo", "wrist")  # PoV row order: exocentric first
PICTURE_SIZE = 224
JPEG_QUALITY = 90


def encode_jpeg(picture: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG bytes of an RGB picture (H, W, 3) uint8; data sets and bags both go through here."""
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not ok:
        raise RuntimeError("OpenCV could not encode a picture as JPEG")
    return data.tobytes()


def make_renderer(model: mujoco.MjModel, size: int) -> mujoco.Renderer:
    """A renderer of square pictures of ``size`` pixels.

    Raises:
        ConfigError: if this machine has no usable OpenGL.
    """
    reason = ""
    # A renderer that was only half made complains once more when it is freed: one line is enough.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        try:
            return mujoco.Renderer(model, size, size)
        except Exception as error:  # every GL backend raises its own kinds
            reason = " ".join(str(error).split())
    finally:
        sys.unraisablehook = hook
    backend = os.environ.get("MUJOCO_GL", "not set")
    raise ConfigError(
        f"pictures cannot be rendered here (MUJOCO_GL is {backend}): {reason} - set MUJOCO_GL to "
        "egl or osmesa and install its library, see docs/simulation.md"
    )


class Camera:
    """An off-screen renderer of one world; use as a context manager, or call ``close``.

    Raises:
        ConfigError: if this machine has no usable OpenGL.
    """

    def __init__(self, world: World, size: int = PICTURE_SIZE) -> None:
        self._world = world
        self._data = mujoco.MjData(world.model)
        self._renderer = make_renderer(world.model, size)

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def pictures(self, states: Iterable[np.ndarray]) -> list[list[np.ndarray]]:
        """Render states (qpos each) with the look the world has now.

        Returns:
            per camera in ``CAMERAS`` order, one RGB picture (H, W, 3) uint8 per state.
        """
        out: list[list[np.ndarray]] = [[] for _ in CAMERAS]
        for qpos in states:
            self._data.qpos[:] = qpos
            self._world.light_lamps(qpos)
            mujoco.mj_kinematics(self._world.model, self._data)
            mujoco.mj_camlight(self._world.model, self._data)
            for row, camera in zip(out, CAMERAS, strict=True):
                self._renderer.update_scene(self._data, camera)
                row.append(self._renderer.render().copy())
        return out
