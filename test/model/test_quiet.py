"""Whoever starts a detector sees our lines and nobody else's."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_detector_says_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import ifailsense_ros.model.detector"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "torchvision" not in run.stdout + run.stderr
    assert run.stdout == ""
