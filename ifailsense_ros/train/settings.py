"""Typed settings of every stage; the named ones are in `train.recipes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.core.prompt import AS_GIVEN
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.train.schedule import Schedule
from ifailsense_ros.train.views import MONTAGE

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
        even_sources: every source is drawn as often, however many episodes it has.
    """

    pictures: int = 16
    hard: float = 0.5
    unfinished: float = 0.0
    twins: bool = False
    category_weights: Mapping[str, float] = field(default_factory=dict)
    even_sources: bool = False


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
        views: in the packed layout, parts of the montage (`train.views`); each step sees one of
            them, drawn anew. Validation sees the first.
        framed: share of the questions whose sentence is put in a frame (`train.frames`).
    """

    schedule: Schedule
    sampling: Sampling = Sampling()
    packed: Questions | None = None
    templates: tuple[str, ...] = (QUESTION,)
    views: tuple[str, ...] = (MONTAGE,)
    framed: float = 0.0


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
        framed: share of the sentences that are put in a frame (`train.frames`).
    """

    phases: tuple[Phase, ...]
    targets: str
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    train_projector: bool = True
    sampling: Sampling = Sampling()
    framed: float = 0.0


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
        framed: share of the sentences that are put in a frame (`train.frames`).
    """

    schedule: Schedule
    layers: tuple[int, ...] | str
    head: FSHeadSettings
    sampling: Sampling = Sampling(pictures=2000)
    batch: int = 32
    num_blocks: int = 3
    vote_weights: tuple[float, ...] | None = None
    weight_vlm: float = 2.0
    framed: float = 0.0


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
        spelling: how an instruction is read; one of `core.prompt.SPELLINGS`.
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
    spelling: str = AS_GIVEN
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
