"""Named, typed settings of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.model.vlm import LORA_TARGETS
from ifailsense_ros.train.loop import Schedule
from ifailsense_ros.train.views import ENDS, EXO_ENDS, GRIPPER, MONTAGE

DEFAULT_SEED = 42
EVEN, RELEASE_RULE = "even", "release"


@dataclass(frozen=True)
class Sampling:
    """Which montages and wrong instructions a step sees.

    Attributes:
        pictures: montages a step; each is seen with a right and a wrong instruction.
        hard: share of negatives that are the episode's designated one (mostly one attribute away).
        category_weights: how often a category is drawn, relative to its share; 1 where not named.
        unfinished: share of negatives that are an unfinished episode with its own instruction (of
            packed rows: share of the episodes), where the data set has such.
        twins: in packed rows, every unfinished episode stands beside the expert that it leaves
            unfinished, so that half of them are unfinished: what differs is what was achieved.
    """

    pictures: int = 16
    hard: float = 0.5
    unfinished: float = 0.0
    twins: bool = False
    category_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Questions:
    """How many yes/no questions a packed row asks about its montage.

    Attributes:
        right: phrasings of what was done; the first is the caption as well.
        wrong: sentences of other tasks.
        unfinished: about an unfinished episode, all of them to be answered with no.
        scene: beside those, about where things are at the start and at the end, and what is
            otherwise than before (`data.scene_questions`); in stage 0 only.
    """

    right: int = 3
    wrong: int = 4
    unfinished: int = 3
    scene: int = 0


QUESTION = "<image> answer en did the robot {instruction}?"
WORDINGS = (
    QUESTION,
    "<image> answer en {instruction}?",
    "<image> en {instruction}",
    "<image> {instruction}",
)
"""Ways to ask the same: what is learned about one must not hang on its words."""


@dataclass(frozen=True)
class Stage0:
    """Makes a small base VLM: captions of what was done, and yes/no questions about it.

    It plays the part that web-scale pre-training plays for PaliGemma2-mix; the words `success` and
    `fail` and the evaluation prompt do not occur in it.

    Attributes:
        packed: captions and several questions behind each montage (`train.packing`); None: one
            question a montage in the layout of the evaluation, right and wrong, without captions.
        templates: what yes and no answer; one is drawn for each question.
        views: parts of the montage (`train.views`); each step sees one of them, drawn anew.
    """

    schedule: Schedule
    sampling: Sampling = Sampling()
    packed: Questions | None = None
    templates: tuple[str, ...] = (QUESTION,)
    views: tuple[str, ...] = (MONTAGE,)


@dataclass(frozen=True)
class Phase:
    """A part of stage 1, with a fresh optimiser.

    Attributes:
        packed: several questions behind each montage (`train.packing`); None: one, in the layout of
            the evaluation.
        tokens: weight of the cross-entropy of the answer's tokens among all (paper, Eq. 1).
        decision: weight of the cross-entropy between the two answer words alone. To a base that has
            never met them, the former is at first a call to say either word at all, whatever it
            sees, and following it destroys what was known; the latter asks which of the two.
    """

    schedule: Schedule
    packed: Questions | None = None
    tokens: float = 1.0
    decision: float = 0.0


@dataclass(frozen=True)
class Stage1:
    """Supervised fine-tuning with LoRA (paper, Sec. IV-B.1).

    Attributes:
        phases: one after the other.
        targets: regular expression of the modules that get an adapter. Plain names would also wrap
            SigLIP's projections.
        rank: r.
        alpha: LoRA's scale is alpha / rank.
        dropout: on the adapter's input.
        train_projector: the paper trains the projector, the authors' release froze it.
    """

    phases: tuple[Phase, ...]
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
        layers: 0-based decoder layers, shallow to deep; or a rule, for bases of any depth: EVEN
            spreads the blocks over the whole decoder (paper), RELEASE_RULE over its deeper half, as
            the authors' code does.
        head: shape of a block.
        num_blocks: K, where `layers` is a rule.
        vote_weights: omega_k of the blocks; None: 1 each.
        weight_vlm: omega_vlm.
        sampling: montages whose hidden states are computed once, each with a right and a wrong
            instruction; with 0 pictures, all of the data set.
        batch: samples a step.
    """

    schedule: Schedule
    layers: tuple[int, ...] | str
    head: FSHeadSettings
    sampling: Sampling = Sampling(pictures=2000)
    batch: int = 32
    num_blocks: int = 3
    vote_weights: tuple[float, ...] | None = None
    weight_vlm: float = 2.0


_Part = TypeVar("_Part", Stage0, Phase, Stage2)


@dataclass(frozen=True)
class Geometry:
    """Montage of a checkpoint; the defaults are sim-tiny's.

    Attributes:
        num_keyframes: T.
        num_pov: N.
        cell_height: pixels; None: what the base's picture leaves for each of N rows.
        cell_width: pixels; None: what the base's picture leaves for each of T columns.
    """

    num_keyframes: int = 4
    num_pov: int = 2
    cell_height: int | None = 84
    cell_width: int | None = 84

    def montage(self, picture: tuple[int, int] | None = None) -> MontageGeometry:
        """The montage's geometry, for a base that sees pictures of (height, width).

        Raises:
            ConfigError: the cells have no size of their own, and there is no such base.
        """
        height, width = self.cell_height, self.cell_width
        if picture is not None:
            height = height or max(1, picture[0] // self.num_pov)
            width = width or max(1, picture[1] // self.num_keyframes)
        if height is None or width is None:
            raise ConfigError("geometry: a base made here needs the size of a cell; name it")
        return MontageGeometry(self.num_pov, self.num_keyframes, height, width)


@dataclass(frozen=True)
class Recipe:
    """All that is needed to make a checkpoint, besides the data.

    Attributes:
        stage0: its phases, in order, for a base made here; none for any other.
        stage1: LoRA.
        stage2: FS blocks.
        geometry: of the montage.
        intermediate_size: of the MLPs of a base made here.
        prompt: template of the question.
        base: folder, or repository of the hub, where no base is made here.
        seed: of a base made here, and already in the seeds of all schedules (`with_seed`).
    """

    name: str
    stage0: tuple[Stage0, ...]
    stage1: Stage1
    stage2: Stage2
    geometry: Geometry = field(default_factory=Geometry)
    intermediate_size: int = 512
    prompt: str = "<image> evaluate en {instruction}"
    base: str | None = None
    seed: int = DEFAULT_SEED

    def with_seed(self, seed: int) -> Recipe:
        """The same with other random draws everywhere: initial weights, batches, dropout."""

        def moved(part: _Part) -> _Part:
            # phases differ by one: a thousand keeps the draws of two seeds apart
            there = (part.schedule.seed + 1000 * (seed - self.seed)) % 2**31
            return replace(part, schedule=replace(part.schedule, seed=there))

        return replace(
            self,
            stage0=tuple(map(moved, self.stage0)),
            stage1=replace(self.stage1, phases=tuple(map(moved, self.stage1.phases))),
            stage2=moved(self.stage2),
            seed=seed,
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of episodes it learns from."""
        stages = (*self.stage0, self.stage1, self.stage2)
        wanted = any(s.sampling.unfinished for s in stages)
        return (EXPERT, UNFINISHED) if wanted else (EXPERT,)

    @property
    def asks_about_scenes(self) -> bool:
        """Whether stage 0 has questions about scenes."""
        return any(s.packed is not None and s.packed.scene for s in self.stage0)


# Patterns on the language model: plain names would wrap the vision tower's projections as well.
ALL_LINEAR = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
QUERY_KEY_VALUE = LORA_TARGETS

# Colours and verbs are learned first; left and right, in two categories, take longest.
LEFT_RIGHT = {"rotating": 2.0, "pushing": 1.5, "placing": 1.5}
ARRIVALS = {"rotating": 2.0, "pushing": 1.5, "placing": 2.5, "lighting": 1.5}
TURNS = {**ARRIVALS, "rotating": 5.0}
# Much of what it learns from has nothing done in it: what was wanted must be seen to have come
# true, and not only to have been attempted.
UNFINISHED_SHARE = 0.5

SIM_TINY_SMF = Recipe(
    name="sim-tiny-smf",
    stage0=(
        Stage0(Schedule(steps=1200, lr=1e-3, warmup=100, eval_every=100), packed=Questions()),
        Stage0(
            Schedule(steps=400, lr=5e-4, warmup=30, eval_every=100, seed=43),
            Sampling(hard=0.8, category_weights=LEFT_RIGHT),
            packed=Questions(),
            templates=WORDINGS,
        ),
        Stage0(
            Schedule(steps=150, lr=3e-4, warmup=20, eval_every=75, seed=44),
            Sampling(hard=0.8, category_weights=LEFT_RIGHT),
            templates=WORDINGS,
        ),
    ),
    # A model of width 192 needs what a 2304 wide one does not: every projection adapted, a larger
    # rank and a higher rate. A rate of 1e-3 wrecks it, though: what it knew of verbs was gone.
    stage1=Stage1(
        (
            # `success` and `fail` are words it has never met: first which of them, then that the
            # answer is one of them.
            Phase(
                Schedule(steps=100, lr=5e-4, warmup=20, weight_decay=0.01, eval_every=50),
                packed=Questions(),
                tokens=0.0,
                decision=1.0,
            ),
            Phase(
                Schedule(steps=150, lr=5e-4, warmup=20, weight_decay=0.01, eval_every=50, seed=43),
                packed=Questions(),
                decision=1.0,
            ),
            Phase(
                Schedule(
                    steps=150,
                    lr=3e-4,
                    warmup=20,
                    weight_decay=0.01,
                    eval_every=75,
                    patience=3,
                    seed=44,
                ),
            ),
        ),
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


# From nothing to what was achieved. A model that has learned to tell tasks by the arm's motion
# alone answers by it, and does not look further; so the motion comes after the scene.
_LOOKING = (
    # Where things are, on the exocentric camera's first and last keyframe.
    Stage0(
        # no validation before the end: there is nothing yet by which to choose
        Schedule(steps=250, lr=1e-3, warmup=50, final=0.5, eval_every=0),
        Sampling(pictures=32, unfinished=UNFINISHED_SHARE, category_weights=ARRIVALS, twins=True),
        packed=Questions(right=0, wrong=0, unfinished=0, scene=10),
        views=(EXO_ENDS,),
    ),
    # What was achieved, on the same.
    Stage0(
        Schedule(steps=1500, lr=1e-3, warmup=50, final=0.2, eval_every=100, seed=43),
        Sampling(
            pictures=32,
            hard=0.8,
            unfinished=UNFINISHED_SHARE,
            category_weights=ARRIVALS,
            twins=True,
        ),
        packed=Questions(right=3, wrong=2, unfinished=2, scene=6),
        templates=WORDINGS,
        views=(EXO_ENDS,),
    ),
    # The whole montage, and often enough less of it, so that it goes on looking at the ends.
    Stage0(
        Schedule(steps=1500, lr=7e-4, warmup=50, eval_every=100, seed=45),
        Sampling(
            pictures=16,
            hard=0.8,
            unfinished=UNFINISHED_SHARE,
            category_weights=ARRIVALS,
            twins=True,
        ),
        packed=Questions(right=4, wrong=4, unfinished=3, scene=3),
        templates=WORDINGS,
        views=(MONTAGE, MONTAGE, ENDS, EXO_ENDS),
    ),
    # Which way something was turned is hardly seen at the ends, and plainly in the hand's motion:
    # learned from the gripper camera alone within 200 steps, and not in 300 of the montage.
    Stage0(
        Schedule(steps=300, lr=1e-3, warmup=30, final=0.5, eval_every=0, seed=50),
        Sampling(pictures=32, hard=0.8, category_weights={"rotating": 20.0}),
        packed=Questions(right=4, wrong=4),
        views=(GRIPPER,),
    ),
    # All of it together.
    Stage0(
        Schedule(steps=400, lr=7e-4, warmup=30, eval_every=100, seed=46),
        Sampling(
            pictures=16, hard=0.8, unfinished=UNFINISHED_SHARE, category_weights=TURNS, twins=True
        ),
        packed=Questions(right=4, wrong=4, unfinished=3, scene=3),
        templates=WORDINGS,
        views=(MONTAGE, MONTAGE, MONTAGE, ENDS),
    ),
)


def _with_unfinished(recipe: Recipe, name: str) -> Recipe:
    """The recipe with unfinished episodes in all stages, beginning with where things are."""

    def taught(sampling: Sampling) -> Sampling:
        return replace(sampling, unfinished=UNFINISHED_SHARE)

    plain = recipe.stage0[-1]
    # As many answers are yes as no: what is unfinished adds to the latter.
    even = Questions(right=5, wrong=2, unfinished=3)
    return replace(
        recipe,
        name=name,
        stage0=(*_LOOKING, replace(plain, sampling=taught(plain.sampling))),
        stage1=replace(
            recipe.stage1,
            sampling=taught(recipe.stage1.sampling),
            phases=tuple(
                replace(p, packed=even if p.packed else None) for p in recipe.stage1.phases
            ),
        ),
        stage2=replace(recipe.stage2, sampling=taught(recipe.stage2.sampling)),
    )


SIM_TINY = _with_unfinished(SIM_TINY_SMF, "sim-tiny")

# What the authors released in code and files: for a 3B base and one GPU.
RELEASE = Recipe(
    name="release",
    stage0=(),
    stage1=Stage1(
        (
            Phase(
                Schedule(
                    steps=0,
                    epochs=3,
                    lr=2e-5,
                    warmup=0.1,
                    final=0.0,
                    weight_decay=1e-5,
                    betas=(0.9, 0.999),
                    accumulate=8,
                    eval_every=0,
                )
            ),
        ),
        targets=ALL_LINEAR,
        rank=16,
        alpha=32,
        dropout=0.05,
        train_projector=False,
        sampling=Sampling(pictures=2),  # two labels each: a batch of 4
    ),
    stage2=Stage2(
        Schedule(
            steps=0,
            epochs=10,
            lr=1e-4,
            warmup=0,
            final=0.01,
            weight_decay=0.1,
            betas=(0.9, 0.999),
            clip=1.0,
            eval_every=0,
        ),
        layers=RELEASE_RULE,
        head=FSHeadSettings(widths=(1024, 256), pooling_heads=4, dropout=0.5),
        sampling=Sampling(pictures=0),
        batch=4,
    ),
    # They squash the whole montage to the base's square picture.
    geometry=Geometry(cell_height=None, cell_width=None),
    base="google/paligemma2-3b-mix-224",
)

# What the paper says (Sec. IV-B); where it gives no number, the release's.
PAPER = replace(
    RELEASE,
    name="paper",
    stage1=replace(RELEASE.stage1, targets=QUERY_KEY_VALUE, train_projector=True),
    stage2=replace(RELEASE.stage2, layers=EVEN),
)

RECIPES = {r.name: r for r in (SIM_TINY, SIM_TINY_SMF, PAPER, RELEASE)}
