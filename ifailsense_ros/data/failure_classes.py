"""The classes of failure, as AHA names them (paper, Sec. III-B): six control errors, one semantic.

Names in data sets, code and reports. A success is `records.EXPERT`.
"""

from __future__ import annotations

INCOMPLETE_GRASP = "incomplete_grasp"
INADEQUATE_GRIP_RETENTION = "inadequate_grip_retention"
MISALIGNED_KEYFRAME = "misaligned_keyframe"
INCORRECT_ROTATION = "incorrect_rotation"
MISSING_ROTATION = "missing_rotation"
WRONG_ACTION_SEQUENCE = "wrong_action_sequence"
WRONG_TARGET_OBJECT = "wrong_target_object"

CONTROL_FAILURES = (
    INCOMPLETE_GRASP,
    INADEQUATE_GRIP_RETENTION,
    MISALIGNED_KEYFRAME,
    INCORRECT_ROTATION,
    MISSING_ROTATION,
    WRONG_ACTION_SEQUENCE,
)
"""Right intention, wrong motion."""

SEMANTIC_FAILURES = (WRONG_TARGET_OBJECT,)
"""Right motion, wrong intention: reported apart from the control errors."""

SEMANTIC_MISALIGNMENT = "semantic_misalignment"
"""Another task of the category was carried out: no class of AHA's, whose data sets hold none."""

FAILURE_CLASSES = CONTROL_FAILURES + SEMANTIC_FAILURES
"""All seven."""
