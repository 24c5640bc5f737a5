"""MJCF of what stands on the desk: table, blocks, drawer, cabinet with its door, switch and lamps.

The state of the LED is the position of a joint that nothing can move (0 off, 1 on): so a recorded
``qpos`` holds everything that a picture shows. The bulb is lit while the switch is on its positive
side.
"""

from __future__ import annotations

from .layout import (
    BAY,
    BLOCK_HALF,
    BULB,
    BUTTON,
    BUTTON_TRAVEL,
    CABINET_FLOOR,
    CABINET_HALF,
    CABINET_HEIGHT,
    CABINET_WALL,
    CABINET_X,
    COLOURS,
    DOOR_HALF,
    DOOR_HEIGHT,
    DOOR_REACH,
    DRAWER_FLOOR,
    DRAWER_HALF_Y,
    DRAWER_STROKE,
    EDGE_X,
    LED,
    SWITCH,
    SWITCH_REACH,
)
from .look import COLOURS_OF_THINGS, DISTRACTORS, TABLE_TEXTURES

BLOCK_RGB = {"red": (0.86, 0.07, 0.07), "blue": (0.08, 0.20, 0.90), "pink": (0.98, 0.42, 0.78)}

# Lamps: colour and emission of bulb and LED, and of the glow around their feet, on and off.
LAMP_RGBA = {
    "bulb": {True: (1.0, 0.93, 0.25, 1.0), False: (0.36, 0.34, 0.30, 1.0)},
    "led": {True: (0.15, 1.0, 0.25, 1.0), False: (0.06, 0.17, 0.09, 1.0)},
}
GLOW_ALPHA = {True: 0.75, False: 0.0}
LAMP_EMISSION = {True: 1.0, False: 0.0}

_WALL = 0.006
_BOARD = 0.010  # thickness of the table where the drawer slides below it
PANEL_TOP = 0.016
BUTTON_TOP = PANEL_TOP + 0.024  # when it is not pressed
_TABLE = (-0.13, 0.97, 0.66)  # x from, x to, half width


def assets() -> str:
    """Materials and table textures."""
    textures = (
        '<texture name="checker" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0.9 0.9 0.9" '
        'width="64" height="64"/>'
        '<texture name="shaded" type="2d" builtin="gradient" rgb1="1 1 1" rgb2="0.84 0.84 0.84" '
        'width="64" height="64"/>'
        '<texture name="grain" type="2d" builtin="flat" rgb1="1 1 1" rgb2="1 1 1" mark="random" '
        'markrgb="0.82 0.82 0.82" random="0.25" width="64" height="64"/>'
    )
    tables = "".join(
        f'<material name="table_{name}" specular="0.1"'
        + ("/>" if name == "plain" else f' texture="{name}" texuniform="true" texrepeat="9 9"/>')
        for name in TABLE_TEXTURES
    )
    plain = "".join(
        f'<material name="{name}" specular="0.1"/>' for name in COLOURS_OF_THINGS if name != "table"
    )
    lamps = "".join(
        f'<material name="{name}"/><material name="{name}_glow" specular="0"/>'
        for name in LAMP_RGBA
    )
    return textures + tables + plain + lamps


def _box(
    centre: tuple[float, float, float],
    half: tuple[float, float, float],
    material: str,
    extra: str = "",
) -> str:
    pos, size = (" ".join(f"{v:.5f}" for v in values) for values in (centre, half))
    return f'<geom type="box" pos="{pos}" size="{size}" material="{material}" {extra}/>'


def table() -> str:
    """The table with its cut-out, of which every part has the material that a look chooses."""
    x0, x1, wide = _TABLE
    from_x, to_x, bay = BAY
    solid = 'class="table"'
    parts = [
        _box(((x0 + EDGE_X) / 2, 0, -_BOARD / 2), ((EDGE_X - x0) / 2, wide, _BOARD / 2), "", solid),
        _box(((to_x + x1) / 2, 0, -0.04), ((x1 - to_x) / 2, wide, 0.04), "", solid),
    ]
    for side in (-1, 1):
        centre = ((from_x + to_x) / 2, side * (bay + wide) / 2, -0.04)
        parts.append(_box(centre, ((to_x - from_x) / 2, (wide - bay) / 2, 0.04), "", solid))
    # Dark below and behind the drawer.
    parts.append(_box((0.585, 0, -0.077), (0.245, bay, 0.003), "slot", 'class="visual"'))
    parts.append(_box((0.345, 0, -0.043), (0.003, bay, 0.033), "slot", 'class="visual"'))
    return "".join(parts).replace('material=""', 'material="table_plain"')


def blocks() -> str:
    """Three free blocks, one end of each white."""
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


def drawer() -> str:
    """A tray below the table that slides towards the camera; its handle stands on its front."""
    deep = DRAWER_STROKE + 0.010
    low, high = DRAWER_FLOOR - 0.006, -_BOARD - 0.008  # of the side walls
    middle, half = (low + high) / 2, (high - low) / 2
    across = DRAWER_HALF_Y + _WALL
    front = 0.007
    parts = [
        _box((-deep / 2, 0, DRAWER_FLOOR - 0.003), (deep / 2, across, 0.003), "drawer"),
        _box((-deep, 0, middle), (0.004, across, half), "drawer", 'mass="0.1"'),
        _box((front, 0, (low - 0.002) / 2), (front, across, (-0.002 - low) / 2), "drawer"),
    ]
    for side in (-1, 1):
        y = side * (DRAWER_HALF_Y + _WALL / 2)
        parts.append(_box((-deep / 2, y, middle), (deep / 2, _WALL / 2, half), "drawer"))
        parts.append(
            f'<geom class="handle" type="capsule" size="0.006" mass="0.02" '
            f'fromto="{front} {side * 0.045} -0.01 {front} {side * 0.045} 0.045"/>'
        )
    return f"""<body name="drawer" pos="{EDGE_X + 0.0005} 0 0">
      <joint name="drawer" type="slide" axis="1 0 0" range="0 {DRAWER_STROKE}" damping="4"
             frictionloss="2"/>
      <inertial pos="0 0 -0.03" mass="0.5" diaginertia="0.003 0.003 0.003"/>
      {"".join(parts)}
      <geom class="handle" name="drawer_handle" type="capsule" size="0.008" mass="0.05"
            fromto="{front} -0.045 0.045 {front} 0.045 0.045"/>
    </body>"""


def cabinet() -> str:
    """A trough for blocks, half of it under a door that slides to the left and right."""
    hx, hy = CABINET_HALF
    wall, high = CABINET_WALL / 2, CABINET_HEIGHT / 2
    parts = [_box((0, 0, CABINET_FLOOR / 2), (hx, hy, CABINET_FLOOR / 2), "slot")]
    for side in (-1, 1):
        x, y = side * (hx + wall), side * (hy + wall)
        parts.append(_box((x, 0, high), (wall, hy + 2 * wall, high), "cabinet"))
        parts.append(_box((0, y, high), (hx, wall, high), "cabinet"))
        # Posts that carry the rails of the door.
        for end in (-1, 1):
            post = (x, end * (hy + wall), DOOR_HEIGHT / 2)
            parts.append(_box(post, (wall, wall, DOOR_HEIGHT / 2), "cabinet", 'class="visual"'))
        rail = (x, 0, DOOR_HEIGHT - 0.003)
        parts.append(_box(rail, (0.0025, hy + 2 * wall, 0.0025), "cabinet", 'class="visual"'))
    lid = _box((0, 0, 0), (hx + 0.004, DOOR_HALF, 0.005), "door", 'mass="0.3"')
    apron = _box((hx + 0.011, 0, -0.016), (0.003, DOOR_HALF, 0.020), "door", 'class="visual"')
    return f"""<body name="cabinet" pos="{CABINET_X} 0 0">{"".join(parts)}
      <body name="door" pos="0 0 {DOOR_HEIGHT}">
        <joint name="door" type="slide" axis="0 1 0" range="{-DOOR_REACH} {DOOR_REACH}"
               damping="4" frictionloss="2"/>
        {lid}{apron}
        <geom class="handle" name="door_handle" type="capsule" size="0.011" mass="0.05"
              fromto="0 0 0.012 0 0 0.064"/>
      </body></body>"""


def lights() -> str:
    """Switch and button beside the drawer, bulb and LED beside the cabinet."""
    x, y = SWITCH
    switch = f"""<body name="switch_panel" pos="{x} {y} 0">
      {_box((0, 0, PANEL_TOP / 2), (0.062, 0.045, PANEL_TOP / 2), "panel")}
      {_box((0, 0, PANEL_TOP), (SWITCH_REACH + 0.012, 0.010, 0.0006), "slot", 'class="visual"')}
      <body name="switch" pos="0 0 {PANEL_TOP}">
        <joint name="switch" type="slide" axis="1 0 0" range="{-SWITCH_REACH} {SWITCH_REACH}"
               damping="2" frictionloss="1.5"/>
        <geom name="switch_lever" type="capsule" fromto="0 0 0.013 0 0 0.044" size="0.012"
              rgba="0.95 0.95 0.95 1" mass="0.05" friction="1 0.05 0.001"/>
      </body></body>"""
    x, y = BUTTON
    button = f"""<body name="button_panel" pos="{x} {y} 0">
      {_box((0, 0, PANEL_TOP / 2), (0.045, 0.045, PANEL_TOP / 2), "panel")}
      <body name="button" pos="0 0 {PANEL_TOP}" gravcomp="1">
        <joint name="button" type="slide" axis="0 0 -1" range="0 {BUTTON_TRAVEL}" damping="2"
               stiffness="150" springref="0"/>
        <geom name="button_cap" type="cylinder" size="0.028 0.012" pos="0 0 0.012"
              rgba="0.90 0.35 0.05 1" mass="0.05"/>
      </body></body>"""
    x, y = BULB
    bulb = f"""<body name="bulb" pos="{x} {y} 0">
      {_box((0, 0, 0.015), (0.016, 0.016, 0.015), "panel")}
      <geom class="visual" name="bulb" type="sphere" size="0.036" pos="0 0 0.056" material="bulb"/>
      <geom class="visual" type="cylinder" size="0.066 0.0006" pos="0 0 0.0006"
            material="bulb_glow"/></body>"""
    x, y = LED
    led = f"""<body name="led_foot" pos="{x} {y} 0">
      {_box((0, 0, 0.012), (0.034, 0.040, 0.012), "panel")}
      <geom class="visual" type="cylinder" size="0.066 0.0006" pos="0 0 0.0006"
            material="led_glow"/>
      <geom class="visual" type="box" size="0.028 0.034 0.016" pos="0 0 0.039" material="led"/>
      <body name="led" pos="0 0 0.02" gravcomp="1">
        <joint name="led" type="slide" axis="0 0 1" damping="1"/>
        <inertial pos="0 0 0" mass="0.01" diaginertia="1e-5 1e-5 1e-5"/></body></body>"""
    return switch + button + bulb + led


def distractors() -> str:
    """Things of no use; a look places and colours them, or makes them invisible."""
    sizes = {"cylinder": "0.020 0.035", "box": "0.022 0.022 0.028", "ball": "0.028"}
    kinds = {"ball": "sphere"}
    return "".join(
        f'<geom class="visual" name="distractor{n}_{shape}" type="{kinds.get(shape, shape)}" '
        f'size="{size}" pos="0.15 0.3 0.03" rgba="0 0 0 0"/>'
        for n in range(DISTRACTORS)
        for shape, size in sizes.items()
    )
