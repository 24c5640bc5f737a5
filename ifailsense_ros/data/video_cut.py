"""Parts of a video into a new one, packet by packet: nothing is decoded, so nothing is lost.

A video can be begun at a key frame only. Where a part begins between two, it keeps the few frames
before it, and `begins` says where it is now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ifailsense_ros.core.errors import DataError, text_of
from ifailsense_ros.data.video import import_av


@dataclass
class _Group:
    """Packets that can be decoded by themselves: from a key frame to the next.

    Attributes:
        packets: how many.
        first, end: presentation times, in units of the stream; the end is not included.
        back: how much earlier it is presented in the new video; None: it is left out.
    """

    packets: int
    first: int
    end: int
    back: int | None = None


class VideoCut:
    """The plan of a cut.

    Args:
        path: of the video.
        spans_s: what is kept, (from, to) in seconds, `to` not included.
        fps: frames a second, for frames that do not say how long they are.

    Attributes:
        begins_s: when each span begins in the new video.

    Raises:
        DataError: PyAV is missing; no such file, no video, or a span that is not in it.
    """

    def __init__(self, path: Path, spans_s: Sequence[tuple[float, float]], fps: float) -> None:
        self.path = path
        with _opened(path) as (container, stream):
            base = stream.time_base
            self._groups = _groups(container, stream, round(1 / (fps * base)))
        half = 0.5 / fps
        kept: list[_Group] = []
        self.begins_s: list[float] = []
        # The middle of its first frame, and of the last one before its end.
        spans = [((begin + half) / base, (end - half) / base) for begin, end in spans_s]
        cursor = 0
        for group in self._groups:
            if any(group.first <= end and group.end > begin for begin, end in spans):
                group.back = group.first - cursor
                cursor += group.end - group.first
                kept.append(group)
        for (begin_s, _), (begin, _) in zip(spans_s, spans, strict=True):
            group = next((g for g in kept if g.first <= begin < g.end), None)
            if group is None or group.back is None:
                raise DataError(f"{path}: has no frame at {begin_s:.3f} s: it was cut off")
            self.begins_s.append(begin_s - float(group.back * base))

    def write(self, out: Path) -> None:
        """Write the new video.

        Raises:
            DataError: the video turns out to be damaged.
        """
        av = import_av()
        with _opened(self.path) as (container, stream), av.open(out, "w", format="mp4") as target:
            new = target.add_stream_from_template(stream, opaque=True)
            new.time_base = stream.time_base
            packets = (packet for packet in container.demux(stream) if packet.pts is not None)
            for group in self._groups:
                for _ in range(group.packets):
                    packet = next(packets)
                    if group.back is None:
                        continue
                    packet.pts -= group.back
                    packet.dts -= group.back
                    packet.stream = new
                    target.mux(packet)


def _groups(container: Any, stream: Any, frame: int) -> list[_Group]:
    """All packets of a stream, in groups that follow each other without a gap."""
    groups: list[_Group] = []
    for packet in container.demux(stream):
        if packet.pts is None:
            continue  # the demuxer's word that it has no more
        end = packet.pts + (packet.duration or frame)
        if packet.is_keyframe:
            groups.append(_Group(1, packet.pts, end))
        elif not groups:
            raise DataError(f"{container.name}: does not begin with a key frame; copy it again")
        else:
            group = groups[-1]
            group.packets += 1
            group.first, group.end = min(group.first, packet.pts), max(group.end, end)
        # Frames that are shown before their key frame are made from the frames before it: an open
        # group, which cannot stand alone.
        while len(groups) > 1 and groups[-1].first < groups[-2].end:
            last = groups.pop()
            groups[-1].packets += last.packets
            groups[-1].end = max(groups[-1].end, last.end)
    for group, after in pairwise(groups):
        group.end = after.first
    return groups


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    av = import_av()
    if not path.is_file():
        raise DataError(f"{path}: is missing; copy the data set again")
    try:
        with av.open(str(path)) as container:
            yield container, container.streams.video[0]
    except DataError:
        raise
    except Exception as error:
        # A damaged file fails in any of many ways inside PyAV.
        raise DataError(
            f"{path}: cannot be cut ({text_of(error)}); it is damaged or was cut off: copy it again"
        ) from error
