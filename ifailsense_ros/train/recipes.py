"""Named, typed settings of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.train.loop import Schedule


@dataclass(frozen=True)
class Sampling:
    """Which montages and wrong instructions a step sees.

    Attributes:
        pictures: montages a step; each is seen with a right and a wrong instruction.
        hard: share of negatives that are the episode's designated one (mostly one attribute away).
        category_weights: how often a category is drawn, relative to its share; 1 where not named.
    """

    pictures: int = 16
    hard: float = 0.5
    category_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage0:
    """Makes a small base VLM: captions of what was done, and yes/no questions about it.

    It plays the part that web-scale pre-training plays for PaliGemma2-mix; the words `success` and
    `fail` and the evaluation prompt do not occur in it.

    Attributes:
        captions: whether each montage is also captioned.
    """

    schedule: Schedule
    sampling: Sampling = Sampling()
    captions: bool = True


@dataclass(frozen=True)
class Stage1:
    """Supervised fine-tuning with LoRA (paper, Sec. IV-B.1).

    Attributes:
        schedules: one after the other, each with a fresh optimiser (warm restarts).
        targets: regular expression of the modules that get an adapter. Plain names would also wrap
            SigLIP's projections.
        rank: r.
        alpha: LoRA's scale is alpha / rank.
        dropout: on the adapter's input.
        train_projector: the paper trains the projector, the authors' release froze it.
    """

    schedules: tuple[Schedule, ...]
    targets: str
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    train_projector: bool = True
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Stage2:
    """FS blocks on the frozen VLM (paper, Sec. IV-B.2).

    Attributes:
        layers: 0-based decoder layers, shallow to deep.
        head: shape of a block.
        pairs: montages whose hidden states are computed once, each with g* and a wrong instruction.
        batch: samples a step.
    """

    schedule: Schedule
    layers: tuple[int, ...]
    head: FSHeadSettings
    pairs: int = 2000
    batch: int = 32


@dataclass(frozen=True)
class Geometry:
    """Montage and picture of a checkpoint; the defaults are sim-tiny's."""

    num_keyframes: int = 4
    num_pov: int = 2
    cell_height: int = 84
    cell_width: int = 84


@dataclass(frozen=True)
class Recipe:
    """All that is needed to make a checkpoint, besides the data.

    Attributes:
        stage0: its phases, in order; none for a base from a hub.
    """

    name: str
    stage0: tuple[Stage0, ...]
    stage1: Stage1
    stage2: Stage2
    geometry: Geometry = field(default_factory=Geometry)
    intermediate_size: int = 512
    prompt: str = "<image> evaluate en {instruction}"


ALL_LINEAR = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"

# Colours and verbs are learned first. What is left then is left and right, in two categories.
LEFT_RIGHT = Sampling(pictures=24, hard=0.9, category_weights={"rotating": 3.0, "pushing": 3.0})

SIM_TINY = Recipe(
    name="sim-tiny",
    stage0=(
        Stage0(Schedule(steps=1500, lr=1e-3, warmup=100, eval_every=100, patience=8)),
        Stage0(
            Schedule(steps=600, lr=3e-4, warmup=30, eval_every=75, patience=4),
            sampling=LEFT_RIGHT,
            captions=False,
        ),
    ),
    # A model of width 192 needs what a 2304 wide one does not: every projection adapted, a larger
    # rank and a higher rate. A rate of 1e-3 wrecks it, though: what it knew of verbs was gone.
    stage1=Stage1(
        (
            Schedule(steps=300, lr=2e-4, warmup=30, weight_decay=0.01, eval_every=50, patience=4),
            # Still rising at the end of the first: 0.94 on validation, where the base has 0.98.
            Schedule(
                steps=300, lr=3e-4, warmup=20, weight_decay=0.01, eval_every=50, patience=4, seed=43
            ),
        ),
        targets=ALL_LINEAR,
        rank=32,
        alpha=64,
        sampling=Sampling(hard=0.9, category_weights=LEFT_RIGHT.category_weights),
    ),
    stage2=Stage2(
        Schedule(steps=800, lr=5e-4, warmup=50, weight_decay=0.1, eval_every=100, patience=3),
        layers=(1, 2, 3),
        head=FSHeadSettings(widths=(128, 64), pooling_heads=4, dropout=0.5),
    ),
)

RECIPES = {r.name: r for r in (SIM_TINY,)}
