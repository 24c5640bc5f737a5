"""Where things are on the desk: the one place for lengths (metres) that several modules share.

World frame: the robot's base is at the origin, x points from it towards the exocentric camera (down
in its picture), y to the right of that picture, z up; the table's surface is z = 0. From the robot
outwards: the cabinet with its sliding door, the blocks, the table's edge with the drawer below it;
bulb and LED stand beside the cabinet, their switch and button beside the drawer.
"""

from __future__ import annotations

COLOURS = ("red", "blue", "pink")

# Blocks: 100 x 44 x 44 mm.
BLOCK_HALF = (0.050, 0.022, 0.022)
BLOCK_X = (0.435, 0.530)
BLOCK_Y = (-0.130, 0.130)
BLOCK_GAP = 0.100  # least distance between two centres on the table

# Cabinet: a trough open at the top, half of it under the door that slides along y.
CABINET_X = 0.305
CABINET_HALF = (0.062, 0.225)  # inside
CABINET_WALL = 0.008
CABINET_FLOOR = 0.003
CABINET_HEIGHT = 0.030
DOOR_HALF = 0.080  # along y
DOOR_HEIGHT = 0.056
DOOR_REACH = 0.143  # -DOOR_REACH is left, +DOOR_REACH is right
DOOR_START = (-0.018, 0.018)

# Drawer: below the table, opening towards the camera; 0 is closed, DRAWER_STROKE is open. The part
# between the table's edge and its front is what one can reach into.
EDGE_X = 0.590
DRAWER_STROKE = 0.205
DRAWER_START = (0.130, 0.155)
DRAWER_HALF_Y = 0.110  # inside
DRAWER_FLOOR = -0.059
DRAWER_SLOT_Y = 0.052  # a block lies on the left or the right of the drawer's middle
BAY = (0.590, 0.830, 0.122)  # the table's cut-out: x from, x to, half width

# Switch (a lever that slides along x: towards the camera is on) and button; bulb and LED.
SWITCH = (0.680, -0.215)
SWITCH_REACH = 0.030
BUTTON = (0.680, 0.215)
BUTTON_TRAVEL = 0.014
BULB = (0.300, -0.298)
LED = (0.300, 0.298)
