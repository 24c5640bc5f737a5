"""The MuJoCo model: a Franka at the desk.

The text is the same for every scene; what differs (colours, light, camera, poses) is written into
the compiled model, so that a process compiles the meshes and makes a renderer only once.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import furniture

ASSETS = Path(__file__).parent / "assets" / "panda_lo"

# Franka Emika Panda: (link, offset from its parent, orientation, joint range, inertial), from the
# public kinematic parameters of the arm.
_LINKS = (
    ("link1", "0 0 0.333", "1 0 0 0", "-2.897 2.897", "0.004 0.002 -0.048", 4.97, "0.1 0.1 0.01"),
    ("link2", "0 0 0", "1 -1 0 0", "-1.7627 1.7627", "-0.003 -0.029 0.0035", 0.65, ".01 .03 .03"),
    ("link3", "0 -0.316 0", "1 1 0 0", "-2.897 2.897", "0.0275 0.039 -0.0665", 3.2, ".04 .04 .01"),
    ("link4", "0.0825 0 0", "1 1 0 0", "-3.0717 -0.0698", "-0.053 0.104 0.027", 3.6, ".03 .02 .03"),
    ("link5", "-.0825 .384 0", "1 -1 0 0", "-2.897 2.897", "-.012 .041 -.038", 1.2, ".04 .03 .01"),
    ("link6", "0 0 0", "1 1 0 0", "-0.0174 3.7524", "0.06 -0.014 -0.0105", 1.67, ".003 .004 .005"),
    ("link7", "0.088 0 0", "1 1 0 0", "-2.897 2.897", ".0105 -.004 .0616", 0.735, ".0125 .01 .005"),
)
# Position servos: stiffness, damping, largest torque per joint.
_SERVOS = ((4500, 450, 87),) * 2 + ((3500, 350, 87),) * 2 + ((2000, 200, 60),) * 3


def _parts() -> dict[str, list[dict]]:
    return json.loads((ASSETS / "parts.json").read_text())


def _visual(parts: dict[str, list[dict]], link: str) -> str:
    out = []
    for part in parts[link]:
        r, g, b = (1, 1, 1) if link in ("link1", "link2", "link7") else part["rgb"]
        out.append(
            f'<geom class="visual" type="mesh" mesh="{Path(part["file"]).stem}" '
            f'rgba="{r} {g} {b} 1"/>'
        )
    return "".join(out)


def _finger(parts: dict[str, list[dict]], name: str, quat: str) -> str:
    return f"""
    <body name="{name}" pos="0 0 0.0584" quat="{quat}">
      <inertial pos="0 0 0" mass="0.05" diaginertia="1e-4 1e-4 1e-4"/>
      <joint name="{name}" type="slide" axis="0 1 0" range="0 0.04" armature="0.1" damping="20"
             solreflimit="0.01 1"/>
      {_visual(parts, "finger")}
      <geom type="box" pos="0 0.005 0.042" size="0.0105 0.005 0.0125" friction="2 0.05 0.001"
            condim="4" solref="0.01 1" group="4" mass="0"/>
      <geom type="box" pos="0 0.012 0.018" size="0.0105 0.008 0.012" group="4" mass="0"/>
    </body>"""


def _arm(parts: dict[str, list[dict]]) -> str:
    text = f"""<body name="link0" gravcomp="1">
      <inertial pos="-0.04 0 0.05" mass="0.63" diaginertia="0.003 0.004 0.004"/>
      {_visual(parts, "link0")}"""
    for number, (name, pos, quat, limits, centre, mass, inertia) in enumerate(_LINKS, 1):
        text += f"""<body name="{name}" pos="{pos}" quat="{quat}" gravcomp="1">
      <inertial pos="{centre}" mass="{mass}" diaginertia="{inertia}"/>
      <joint name="arm{number}" axis="0 0 1" range="{limits}" armature="0.1" damping="1"/>
      {_visual(parts, name)}"""
    text += f"""<body name="hand" pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">
      <inertial pos="0 0 0.03" mass="0.73" diaginertia="0.001 0.0025 0.0017"/>
      {_visual(parts, "hand")}
      <geom type="box" pos="0 0 0.035" size="0.025 0.09 0.025" group="4" mass="0"/>
      <site name="tcp" pos="0 0 0.1034" size="0.004" rgba="0 0 0 0"/>
      <camera name="wrist" pos="0.075 0 0.015" xyaxes="0 1 0 0.98 0 0.2" fovy="76"/>
      {_finger(parts, "finger_left", "0 0 0 1")}{_finger(parts, "finger_right", "1 0 0 0")}
    </body>"""
    return text + "</body>" * (len(_LINKS) + 1)


def build_xml(picture_size: int = 224) -> str:
    """The MJCF text of the world; ``picture_size`` bounds the off-screen pictures (pixels)."""
    parts = _parts()
    meshes = "".join(
        f'<mesh name="{Path(part["file"]).stem}" file="{part["file"]}"/>'
        for link in parts.values()
        for part in link
    )
    servos = "".join(
        f'<general name="arm{i}" joint="arm{i}" biastype="affine" gainprm="{kp}" '
        f'biasprm="0 -{kp} -{kv}" forcerange="-{f} {f}" ctrlrange="-4 4"/>'
        for i, (kp, kv, f) in enumerate(_SERVOS, 1)
    )
    return f"""<mujoco model="ifailsense_desk">
  <compiler angle="radian" meshdir="{ASSETS}" autolimits="true"/>
  <option timestep="0.004" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual><global offwidth="{picture_size}" offheight="{picture_size}"/>
    <quality shadowsize="0" offsamples="4"/>
    <headlight ambient="0.4 0.4 0.4" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <map znear="0.02"/></visual>
  <default>
    <default class="visual"><geom contype="0" conaffinity="0" group="2" mass="0"/></default>
    <default class="table"><geom friction="0.8 0.01 0.001"/></default>
    <default class="handle"><geom rgba="0.08 0.08 0.08 1" friction="1.5 0.05 0.001"/></default>
  </default>
  <asset>{meshes}{furniture.assets()}</asset>
  <worldbody>
    <light name="lamp" pos="0.9 -0.3 1.9" dir="0 0 -1" cutoff="60" exponent="1" castshadow="false"/>
    <geom type="plane" pos="0 0 -0.75" size="4 4 0.1" material="floor"/>
    <camera name="exo" pos="1 0 0.7" fovy="41"/>
    {furniture.distractors()}{_arm(parts)}
    {furniture.table()}{furniture.drawer()}{furniture.cabinet()}{furniture.lights()}
    {furniture.blocks()}
  </worldbody>
  <equality><joint joint1="finger_left" joint2="finger_right" solref="0.005 1"
                   solimp="0.95 0.99 0.001"/></equality>
  <contact><exclude body1="link7" body2="hand"/>
    <exclude body1="button_panel" body2="button"/></contact>
  <actuator>{servos}
    <general name="grip" joint="finger_left" biastype="affine" gainprm="800" biasprm="0 -800 -40"
             forcerange="-60 60" ctrlrange="0 0.04"/></actuator>
</mujoco>"""
