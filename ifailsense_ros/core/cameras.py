"""When each camera was last heard of, in its two clocks: header stamps and steady time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class CameraWatch:
    """Newest stamp and last arrival of each camera, and of the pairs made of them."""

    def __init__(self) -> None:
        self._newest_ns: dict[str, int] = {}
        self._heard_now: dict[str, int] = {}
        self._last_heard_now: int | None = None
        self._newest_pair_ns: int | None = None

    @property
    def stamps_ns(self) -> Mapping[str, int]:
        """Newest stamp of each camera since the last jump in time."""
        return dict(self._newest_ns)

    def newest(self, otherwise_ns: int) -> int:
        """Newest stamp of any camera."""
        return max(self._newest_ns.values(), default=otherwise_ns)

    def is_before(self, stamp_ns: int, margin_ns: int, camera: str | None = None) -> bool:
        """Whether a stamp is more than `margin_ns` older than the newest (of one camera)."""
        newest = self.newest(stamp_ns) if camera is None else self._newest_ns.get(camera, stamp_ns)
        return stamp_ns < newest - margin_ns

    def heard(self, camera: str, now_ns: int, stamp_ns: int | None = None) -> None:
        """Something came from a camera; no stamp if it could not be read."""
        self._heard_now[camera] = self._last_heard_now = now_ns
        if stamp_ns is not None and stamp_ns >= self._newest_ns.get(camera, stamp_ns):
            self._newest_ns[camera] = stamp_ns

    def paired(self, stamp_ns: int) -> None:
        """A pair came."""
        if self._newest_pair_ns is None or stamp_ns > self._newest_pair_ns:
            self._newest_pair_ns = stamp_ns

    def pairs_reach(self, stamp_ns: int) -> bool:
        """Whether a pair of this stamp or newer has come."""
        return self._newest_pair_ns is not None and self._newest_pair_ns >= stamp_ns

    def forget_stamps(self) -> None:
        """Time has jumped: stamps start anew. Steady time goes on."""
        self._newest_ns.clear()
        self._newest_pair_ns = None

    def silent(self, cameras: Iterable[str], since_now: int) -> list[str]:
        """Which of the cameras have not been heard of since that steady time."""
        return [c for c in cameras if self._heard_now.get(c, since_now - 1) < since_now]

    def last_heard(self, otherwise: int) -> int:
        """Steady time of the last sign of any camera."""
        return otherwise if self._last_heard_now is None else self._last_heard_now
