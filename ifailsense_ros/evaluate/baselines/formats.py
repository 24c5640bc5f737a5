"""The questions that baselines are asked, and the strict reading of their answers.

docs/baselines.md holds the same texts with their sources; a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ifailsense_ros.core.arbitration import VLM_SOURCE, arbitrate
from ifailsense_ros.core.checkpoint import AnswerWords, MontageSettings
from ifailsense_ros.core.prompt import IMAGE_TOKEN
from ifailsense_ros.core.verdict import Judgement, Reason, Vote, VoteValue

ABSTAIN_RULE = "unknown_unless_unanimous"

_NUMBERS = {1: "one moment", 2: "two moments", 3: "three moments", 4: "four moments"}
_SHOWN = 60  # characters of an answer that a verdict's detail quotes


@dataclass(frozen=True)
class Format:
    """A question and the answers to it that count.

    Attributes:
        name: for the option `format`.
        one_view: template for N = 1, with "{instruction}"; "{moments}" becomes the number of time
            steps.
        two_views: the same for N = 2.
        words: answers that count, lower case.
        reasons_follow: whether an answer is its first part, up to a comma or full stop (AHA:
            "No, the robot ..."), and not the whole text.
    """

    name: str
    one_view: str
    two_views: str
    words: AnswerWords
    reasons_follow: bool = False

    def template(self, montage: MontageSettings) -> str:
        """With "<image>" and "{instruction}", each once, as in `CheckpointConfig.prompt`."""
        text = self.one_view if montage.num_pov == 1 else self.two_views
        moments = _NUMBERS.get(montage.num_keyframes, f"{montage.num_keyframes} moments")
        return text.replace("{moments}", moments)

    def read(self, answer: str) -> VoteValue:
        """The vote of an answer: ABSTAIN unless it is one of `words`, and nothing besides.

        Case, white space, quotation marks, asterisks and a full stop around it do not matter.
        """
        text = re.split(r"[,.\n]", answer.strip(), maxsplit=1)[0] if self.reasons_follow else answer
        word = re.sub(r"^[\s\"'`*]+|[\s\"'`*.!]+$", "", text).lower()
        if word in self.words.success:
            return VoteValue.SUCCESS
        return VoteValue.FAIL if word in self.words.fail else VoteValue.ABSTAIN

    def judgement(self, answer: str, p_success: float) -> Judgement:
        """What an answer makes of an episode; UNKNOWN, VLM_ABSTAINED for one that does not count.

        Args:
            answer: text of the model.
            p_success: of an answer that counts, 0..1.
        """
        value = self.read(answer)
        p = float("nan") if value is VoteValue.ABSTAIN else p_success
        judgement = arbitrate([Vote(VLM_SOURCE, value, p, 1.0)], ABSTAIN_RULE)
        if judgement.reason is not Reason.VLM_ABSTAINED:
            return judgement
        said = " ".join(answer.split())
        said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
        words = ", ".join([*self.words.success, *self.words.fail])
        return replace(judgement, detail=f"the answer {said!r} is none of: {words}")


_AHA_END = (
    "Each frame is labeled with the corresponding timestep reflecting the temporal information "
    "from left to right. The white grid represents future sub-tasks that has yet to happen and "
    "should be ignore. For the given sub-tasks, first determine it has succeed by choosing from "
    '["yes", "no"], and then explain the reason why the current sub-tasks has failed.'
)
_YES_NO = AnswerWords(("yes",), ("no",))

FORMATS = {
    f.name: f
    for f in (
        Format(
            "evaluate",
            f"{IMAGE_TOKEN} evaluate en {{instruction}}",
            f"{IMAGE_TOKEN} evaluate en {{instruction}}",
            AnswerWords(("success", "1", "pass"), ("fail", "0", "failure")),
        ),
        Format(
            "vqa",
            f"{IMAGE_TOKEN}answer en did the robot {{instruction}}?",
            f"{IMAGE_TOKEN}answer en did the robot {{instruction}}?",
            _YES_NO,
        ),
        Format(
            "question",
            f"{IMAGE_TOKEN}\nThe picture shows a robot at {{moments}} of one attempt, in order of "
            'time from left to right. The robot was told: "{instruction}". Did it do exactly what '
            "it was told? Answer with one word: success or fail.",
            f"{IMAGE_TOKEN}\nThe picture shows a robot at {{moments}} of one attempt, in order of "
            "time from left to right. The upper row is seen by a fixed camera, the lower row at "
            "the same moments by a camera on the robot's hand. The robot was told: "
            '"{instruction}". Did it do exactly what it was told? Answer with one word: success '
            "or fail.",
            AnswerWords(("success",), ("fail", "failure")),
        ),
        Format(
            "aha",
            f"{IMAGE_TOKEN}\nIn the image, it contains many frames from a single view at different "
            "time steps in a matrix arrangement depicting the robot arm performing {instruction}. "
            f"{_AHA_END}",
            f"{IMAGE_TOKEN}\nIn the image, it contains many frames from different views at "
            "different time steps in a matrix arrangement depicting the robot arm performing "
            "{instruction}. The frames are combined with different views, from top to bottom: the "
            f"top row is the front view; and the bottom is the wrist view. {_AHA_END}",
            _YES_NO,
            reasons_follow=True,
        ),
    )
}
