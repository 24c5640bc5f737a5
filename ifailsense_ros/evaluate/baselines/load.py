"""From a detector's name to the detector: checkpoints, detectors of one's own, and baselines."""

from __future__ import annotations

from typing import Any

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.evaluate.baselines.formats import FORMATS
from ifailsense_ros.evaluate.baselines.names import BaselineName, is_baseline, parse_name
from ifailsense_ros.model.handle import is_factory, make_detector


def open_detector(spec: str, device: str = "auto", **settings: Any) -> Detector:
    """The detector that a `--detector` names.

    Args:
        spec: baseline ("baseline:..."), factory ("module:callable", called with device= and
            shuffle_seed= as by the node), or checkpoint.
        device: see `model.detector.load_detector`.
        settings: as there.

    Raises:
        IFailSenseError: there is no such thing, or it cannot be loaded.
    """
    spec = str(spec)
    if is_baseline(spec):
        return load_baseline(spec, device, **settings)
    if is_factory(spec):
        # A detector of one's own need not know the rest, unless something is asked of it.
        asked = {k: v for k, v in settings.items() if k != "num_threads" and v != _UNASKED.get(k)}
        return make_detector(spec, {"device": device, "shuffle_seed": None, **asked})
    from ifailsense_ros.model.detector import load_detector

    return load_detector(spec, device=device, **settings)


_UNASKED = {"guard": True, "short_circuit": True, "acceleration": "none", "quantisation": "none"}
"""Defaults of `load_detector`; those of the others are None."""


def load_baseline(
    spec: str,
    device: str = "auto",
    shuffle_seed: int | None = None,
    num_threads: int | None = None,
    max_missed_failures: float | None = None,
    max_false_alarms: float | None = None,
    guard: bool = True,
    short_circuit: bool = True,
    acceleration: str = "none",
    quantisation: str = "none",
) -> Detector:
    """Load a baseline; also the factory by which a node does it.

    Args:
        spec: "baseline:NAME[:WHAT][,option=value...]", see docs/baselines.md.
        device: of those that compute here.
        shuffle_seed: of `lora-only` and `vlm-only`, see `load_detector`.
        num_threads: torch's threads in this process; None leaves them.
        max_missed_failures, max_false_alarms: None; a baseline has no calibration.
        guard, short_circuit: for the sake of `load_detector`'s callers; a baseline has neither.
        acceleration: of `lora-only` and `vlm-only`, see `load_detector`.
        quantisation: "none"; baselines are not quantised.

    Raises:
        ConfigError: a name, option or setting that does not exist here, no key for the endpoint.
        CheckpointError: the model cannot be loaded.
    """
    name = parse_name(spec)
    if max_missed_failures is not None or max_false_alarms is not None:
        raise ConfigError(
            f"{spec}: a baseline has no calibration and cannot promise error rates; leave "
            "max_missed_failures and max_false_alarms out"
        )
    of_ours = name.kind in ("lora-only", "vlm-only")
    if shuffle_seed is not None and not of_ours:
        raise ConfigError(f"{spec}: has no trained weights of ours to shuffle; leave the seed out")
    if acceleration != "none" and not of_ours:
        raise ConfigError(f"{spec}: acceleration is for checkpoints of ours; leave it out")
    if quantisation != "none":
        raise ConfigError(f"{spec}: a baseline cannot be quantised; leave quantisation out")
    if name.kind.startswith("always-"):
        from ifailsense_ros.evaluate.baselines.constant import ConstantDetector

        return ConstantDetector(Outcome[name.kind.removeprefix("always-").upper()], name.montage)
    if name.kind == "openai":
        from ifailsense_ros.evaluate.baselines.endpoint import open_endpoint

        return open_endpoint(name)
    return _with_torch(name, device, num_threads, shuffle_seed, acceleration)


def _with_torch(
    name: BaselineName,
    device: str,
    num_threads: int | None,
    shuffle_seed: int | None,
    acceleration: str,
) -> Detector:
    from ifailsense_ros.model.device import choose_device, choose_dtype, set_threads

    set_threads(num_threads)
    place = choose_device(device)
    dtype = choose_dtype(name.options["dtype"], place)
    if name.kind in ("zero-shot", "aha"):
        from ifailsense_ros.evaluate.baselines.zero_shot import load_zero_shot

        fmt = "aha" if name.kind == "aha" else name.options["format"]
        return load_zero_shot(
            name.what,
            name.montage,
            None if fmt is None else FORMATS[fmt],
            place,
            dtype,
            likelier=name.options["read"] == "likelier",
        )
    from ifailsense_ros.evaluate.baselines.ours import lora_only, vlm_only
    from ifailsense_ros.model.checkpoint import load_checkpoint
    from ifailsense_ros.model.shuffle import shuffle_trained_weights

    checkpoint = load_checkpoint(name.what, device=place, dtype=dtype)
    if shuffle_seed is not None:
        shuffle_trained_weights(checkpoint, shuffle_seed)
    suffix = "" if shuffle_seed is None else f"+shuffled-{shuffle_seed}"
    make = lora_only if name.kind == "lora-only" else vlm_only
    settings = {} if acceleration == "none" else {"acceleration": acceleration}
    return make(checkpoint, suffix, **settings)
