"""A few thousand malformed messages; `python -m benchmarks.fuzz` pours in 100,000."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from benchmarks import fuzz


@pytest.mark.slow
def test_malformed_messages_are_counted_and_nothing_is_raised():
    total = fuzz.run(examples=120, seed_=7)
    assert total["messages"] > 1500
    # It must not have been nonsense alone, nor good pictures alone.
    assert total["verdict_success"] > 20
    assert total["verdict_unknown"] > 20
    assert total["pictures refused"] > 20
