"""Named, typed settings of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.data import records
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.train.loop import Schedule


@dataclass(frozen=True)
class Sampling:
    """Which montages and wrong instructions a step sees.

    Attributes:
        pictures: montages a step; each is seen with a right and a wrong instruction.
        hard: share of negatives that are the episode's designated one (mostly one attribute away).
        category_weights: how often a category is drawn, relative to its share; 1 where not named.
        unfinished: share of negatives that are an unfinished episode with its own instruction (of
            packed rows: share of the episodes), where the data set has such.
    """

    pictures: int = 16
    hard: float = 0.5
    unfinished: float = 0.0
    category_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Questions:
    """How many yes/no questions a packed row asks about its montage.

    Attributes:
        right: phrasings of what was done; the first is the caption as well.
        wrong: sentences of other tasks.
        unfinished: about an unfinished episode, all of them to be answered with no.
    """

    right: int = 3
    wrong: int = 4
    unfinished: int = 3


@dataclass(frozen=True)
class Stage0:
    """Makes a small base VLM: captions of what was done, and yes/no questions about it.

    It plays the part that web-scale pre-training plays for PaliGemma2-mix; the words `success` and
    `fail` and the evaluation prompt do not occur in it.

    Attributes:
        packed: captions and several questions behind each montage (`train.packing`); None: one
            question a montage in the layout of the evaluation, right and wrong, without captions.
    """

    schedule: Schedule
    sampling: Sampling = Sampling()
    packed: Questions | None = None


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
        sampling: montages whose hidden states are computed once, each with a right and a wrong
            instruction.
        batch: samples a step.
    """

    schedule: Schedule
    layers: tuple[int, ...]
    head: FSHeadSettings
    sampling: Sampling = Sampling(pictures=2000)
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

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of episodes it learns from."""
        stages = (*self.stage0, self.stage1, self.stage2)
        wanted = any(s.sampling.unfinished for s in stages)
        return (EXPERT, records.UNFINISHED) if wanted else (EXPERT,)


ALL_LINEAR = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"

# Colours and verbs are learned first; left and right, in two categories, take longest.
LEFT_RIGHT = {"rotating": 2.0, "pushing": 1.5, "placing": 1.5}
# A third of what it learns from has nothing done in it: what was wanted must be seen to have
# come true, and not only to have been attempted.
UNFINISHED = 0.35

SIM_TINY_SMF = Recipe(
    name="sim-tiny-smf",
    stage0=(
        Stage0(Schedule(steps=1200, lr=1e-3, warmup=100, eval_every=100), packed=Questions()),
        Stage0(
            Schedule(steps=400, lr=5e-4, warmup=30, eval_every=100),
            Sampling(hard=0.8, category_weights=LEFT_RIGHT),
            packed=Questions(),
        ),
        Stage0(
            Schedule(steps=150, lr=3e-4, warmup=20, eval_every=75),
            Sampling(hard=0.8, category_weights=LEFT_RIGHT),
        ),
    ),
    # A model of width 192 needs what a 2304 wide one does not: every projection adapted, a larger
    # rank and a higher rate. A rate of 1e-3 wrecks it, though: what it knew of verbs was gone.
    stage1=Stage1(
        (Schedule(steps=400, lr=3e-4, warmup=30, weight_decay=0.01, eval_every=100, patience=3),),
        targets=ALL_LINEAR,
        rank=32,
        alpha=64,
        sampling=Sampling(hard=0.8, category_weights=LEFT_RIGHT),
    ),
    stage2=Stage2(
        Schedule(steps=800, lr=5e-4, warmup=50, weight_decay=0.1, eval_every=100, patience=3),
        layers=(1, 2, 3),
        head=FSHeadSettings(widths=(128, 64), pooling_heads=4, dropout=0.5),
    ),
)


def _with_unfinished(recipe: Recipe, name: str) -> Recipe:
    """The recipe with unfinished episodes from the second phase of stage 0 on."""

    def taught(sampling: Sampling) -> Sampling:
        return replace(sampling, unfinished=UNFINISHED)

    first, *others = recipe.stage0
    # As many answers are yes as no: what is unfinished adds to the latter.
    even = Questions(right=4, wrong=3, unfinished=2)
    return replace(
        recipe,
        name=name,
        stage0=(
            first,
            *(
                replace(s, sampling=taught(s.sampling), packed=even if s.packed else None)
                for s in others
            ),
        ),
        stage1=replace(recipe.stage1, sampling=taught(recipe.stage1.sampling)),
        stage2=replace(recipe.stage2, sampling=taught(recipe.stage2.sampling)),
    )


SIM_TINY = _with_unfinished(SIM_TINY_SMF, "sim-tiny")

RECIPES = {r.name: r for r in (SIM_TINY, SIM_TINY_SMF)}
