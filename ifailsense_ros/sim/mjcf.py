"""The MuJoCo model: a Franka at a desk with three blocks, a drawer and a sliding door.

The text is the same for every scene; what differs (colours, light, camera, poses) is written into
the compiled model, so that a process compiles the meshes and makes a renderer only once.
"""

from __future__ import annotations

import json
from pathlib import Path

from .scene import BLOCK_HALF, COLOURS, DOOR_REACH, DRAWER_STROKE

ASSETS = Path(__file__).parent / "assets" / "panda_lo"

# Materials whose colour a look sets.
TINTED = ("table", "floor", "cabinet", "slot", "door", "unit", "drawer")

BLOCK_RGB = {"red": (0.86, 0.07, 0.07), "blue": (0.08, 0.20, 0.90), "pink": (0.98, 0.42, 0.78)}

# Drawer unit: its back left corner of the picture; the tray slides towards the camera (+x).
DRAWER_UNIT = (0.125, -0.220)
_TRAY = (0.080, 0.085)  # half length along x, half width along y
_TRAY_HEIGHT = 0.062
HANDLE_REACH = 0.042  # handle bar in front of the tray's front panel
HANDLE_HEIGHT = 0.055

# Cabinet with the sliding door, in front of the blocks and lower than the hand.
CABINET = (0.695, 0.0)
_CABINET_HALF = (0.042, 0.185, 0.026)
DOOR_HANDLE_HEIGHT = 0.105

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


def _blocks() -> str:
    hx, hy, hz = BLOCK_HALF
    third = hx / 3
    text = ""
    for colour in COLOURS:
        r, g, b = BLOCK_RGB[colour]
        # The white third marks one end: without it a half turn could not be told from none.
        text += f"""<body name="{colour}"><freejoint name="{colour}"/>
      <geom type="box" size="{hx} {hy} {hz}" rgba="{r} {g} {b} 1" density="400"
            friction="0.8 0.01 0.001" condim="4"/>
      <geom class="visual" type="box" pos="{hx - third + 0.0004} 0 0"
            size="{third:.5f} {hy + 0.0006} {hz + 0.0006}" rgba="0.98 0.98 0.96 1"/>
    </body>"""
    return text


def _drawer() -> str:
    x, y = DRAWER_UNIT
    hx, hy = _TRAY
    wall = 0.006
    height = 0.080
    front = hx + 0.007
    bar = front + HANDLE_REACH
    unit = f'type="box" material="unit" size="{hx + wall} {wall} {height / 2}"'
    tray = 'type="box" material="drawer"'
    return f"""<body name="drawer_unit" pos="{x} {y} 0">
      <geom {unit} pos="0 {hy + 0.012} {height / 2}"/>
      <geom {unit} pos="0 {-hy - 0.012} {height / 2}"/>
      <geom type="box" material="unit" size="{wall} {hy + 0.018} {height / 2}"
            pos="{-hx - wall} 0 {height / 2}"/>
      <geom type="box" material="unit" size="{hx + wall} {hy + 0.018} 0.005" pos="0 0 {height}"/>
      <body name="drawer" pos="0 0 0.004">
        <joint name="drawer" type="slide" axis="1 0 0" range="0 {DRAWER_STROKE}" damping="4"
               frictionloss="2"/>
        <geom class="visual" type="box" material="slot" size="{hx} {hy} 0.004" pos="0 0 0.006"/>
        <geom type="box" material="drawer" mass="0.2" size="{hx} {hy} 0.003" pos="0 0 0.004"/>
        <geom {tray} mass="0.1" size="0.007 {hy} {_TRAY_HEIGHT / 2}"
              pos="{hx} 0 {_TRAY_HEIGHT / 2}"/>
        <geom {tray} mass="0.1" size="0.005 {hy} 0.026" pos="{-hx + 0.005} 0 0.030"/>
        <geom {tray} mass="0.1" size="{hx} 0.005 0.026" pos="0 {hy - 0.005} 0.030"/>
        <geom {tray} mass="0.1" size="{hx} 0.005 0.026" pos="0 {-hy + 0.005} 0.030"/>
        <geom class="handle" name="drawer_handle" type="capsule" size="0.008" mass="0.05"
              fromto="{bar} -0.045 {HANDLE_HEIGHT} {bar} 0.045 {HANDLE_HEIGHT}"/>
        <geom class="handle" type="capsule" size="0.006" mass="0.02"
              fromto="{bar} -0.045 {HANDLE_HEIGHT} {front} -0.045 {HANDLE_HEIGHT}"/>
        <geom class="handle" type="capsule" size="0.006" mass="0.02"
              fromto="{bar} 0.045 {HANDLE_HEIGHT} {front} 0.045 {HANDLE_HEIGHT}"/>
      </body></body>"""


def _cabinet() -> str:
    x, y = CABINET
    hx, hy, hz = _CABINET_HALF
    top = 2 * hz
    return f"""<body name="cabinet" pos="{x} {y} 0">
      <geom type="box" material="cabinet" size="{hx} {hy} {hz}" pos="0 0 {hz}"/>
      <geom class="visual" type="box" material="slot" size="{hx - 0.010} {hy - 0.012} 0.001"
            pos="0 0 {top}"/>
      <geom class="visual" type="box" material="slot" size="0.001 {hy - 0.012} {hz - 0.008}"
            pos="{hx} 0 {hz}"/>
      <body name="door" pos="0 0 {top}">
        <joint name="door" type="slide" axis="0 1 0" range="{-DOOR_REACH} {DOOR_REACH}"
               damping="4" frictionloss="2"/>
        <geom class="visual" type="box" material="door" size="{hx - 0.006} 0.080 0.005"
              pos="0 0 0.006" mass="0.3"/>
        <geom class="visual" type="box" material="door" size="0.004 0.080 {hz}"
              pos="{hx + 0.004} 0 {-hz + 0.010}"/>
        <geom class="handle" name="door_handle" type="capsule" size="0.011" mass="0.05"
              fromto="0 0 0.018 0 0 {DOOR_HANDLE_HEIGHT - top + 0.015}"/>
      </body></body>"""


def build_xml(picture_size: int = 224) -> str:
    """The MJCF text of the world; ``picture_size`` bounds the off-screen pictures (pixels)."""
    parts = _parts()
    meshes = "".join(
        f'<mesh name="{Path(part["file"]).stem}" file="{part["file"]}"/>'
        for link in parts.values()
        for part in link
    )
    materials = "".join(f'<material name="{name}" specular="0.1"/>' for name in TINTED)
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
    <default class="handle"><geom rgba="0.08 0.08 0.08 1" friction="1.5 0.05 0.001"/></default>
  </default>
  <asset>{meshes}{materials}</asset>
  <worldbody>
    <light name="lamp" pos="0.9 -0.3 1.9" dir="0 0 -1" cutoff="60" exponent="1" castshadow="false"/>
    <geom type="plane" pos="0 0 -0.75" size="4 4 0.1" material="floor"/>
    <geom type="box" pos="0.42 0 -0.02" size="0.55 0.66 0.02" material="table"
          friction="0.8 0.01 0.001"/>
    <camera name="exo" pos="1 0 0.7" fovy="41"/>
    <geom class="visual" name="distractor" type="cylinder" size="0.022 0.04" pos="0.2 0.26 0.04"/>
    {_arm(parts)}{_drawer()}{_cabinet()}{_blocks()}
  </worldbody>
  <equality><joint joint1="finger_left" joint2="finger_right" solref="0.005 1"
                   solimp="0.95 0.99 0.001"/></equality>
  <contact><exclude body1="link7" body2="hand"/></contact>
  <actuator>{servos}
    <general name="grip" joint="finger_left" biastype="affine" gainprm="800" biasprm="0 -800 -40"
             forcerange="-60 60" ctrlrange="0 0.04"/></actuator>
</mujoco>"""
