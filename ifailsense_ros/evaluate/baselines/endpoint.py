"""GPT-4o, or anything that speaks OpenAI's chat completions (paper, Sec. V-B).

Pictures leave the machine here, and only here. A request is made for an episode that is judged, and
for nothing else: not when the detector is loaded or warmed up.

    OPENAI_API_KEY    the key; may be absent where OPENAI_BASE_URL is set
    OPENAI_BASE_URL   e.g. http://localhost:8000/v1; absent: OpenAI's own
"""

from __future__ import annotations

import base64
import logging
import math
import os
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.errors import ConfigError, DetectorStopped, text_of
from ifailsense_ros.core.prompt import IMAGE_TOKEN
from ifailsense_ros.core.verdict import Judgement, Reason, VoteValue
from ifailsense_ros.evaluate.baselines.asking import AskingDetector
from ifailsense_ros.evaluate.baselines.budget import Budget
from ifailsense_ros.evaluate.baselines.formats import FORMATS, Format
from ifailsense_ros.evaluate.baselines.names import BaselineName

_log = logging.getLogger(__name__)

KEY, BASE_URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
MAX_TOKENS = 16
IN_A_ROW = 5
"""Requests that may fail one after the other before that is an error and no longer bad luck."""

_BLOCKED = {"content_filter", "content_policy_violation"}
_TOLD_BEFORE = 10  # times that the log says what was spent, over the whole budget


class EndpointError(DetectorStopped):
    """The endpoint refuses, and would refuse the next request too."""


def open_endpoint(name: BaselineName) -> EndpointDetector:
    """A detector that asks the endpoint of the environment.

    Raises:
        ConfigError: the `openai` package or the key is missing, or the URL is none.
    """
    try:
        import openai
    except ImportError:
        raise ConfigError(
            f"baseline:{name.kind} needs the openai client: pip install '.[openai]' in the checkout"
        ) from None
    url, key = os.environ.get(BASE_URL, "").strip(), os.environ.get(KEY, "").strip()
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise ConfigError(f"{BASE_URL} is {url!r}, must be a URL such as http://localhost:8000/v1")
    if not key and not url:
        raise ConfigError(
            f"baseline:{name.kind} needs {KEY} in the environment, or {BASE_URL} for an endpoint "
            "of your own"
        )
    o = name.options
    client = openai.OpenAI(
        api_key=key or "none",
        base_url=url or "https://api.openai.com/v1",
        timeout=o["timeout"],
        max_retries=o["retries"],
    )
    return EndpointDetector(
        client,
        name.what,
        name.montage,
        FORMATS[o["format"]],
        Budget(o["budget"], name.what, o["ledger"]),
        detail=o["detail"],
        logprobs=o["logprobs"] == "yes",
    )


class EndpointDetector(AskingDetector):
    """One request an episode, retried by the client; the answer is read strictly.

    `p_success` is 1 or 0, or with `logprobs` what the endpoint says of the two answers.

    Args:
        client: `openai.OpenAI`.
        model: name of the model there.
        montage: which keyframes it is shown.
        fmt: the question.
        budget: counts tokens, and ends it.
        detail: how closely the endpoint shall look at the picture.
        logprobs: whether to ask for probabilities.
    """

    wants_warm_up = False
    """Nothing is sent that nobody wants to know."""

    def __init__(
        self,
        client: Any,
        model: str,
        montage: MontageSettings,
        fmt: Format,
        budget: Budget,
        *,
        detail: str = "high",
        logprobs: bool = False,
    ) -> None:
        url = urlsplit(str(client.base_url))  # may hold a password, which is nobody's business
        host = f"{url.hostname}:{url.port}" if url.port else str(url.hostname)
        template = fmt.template(montage)
        config = bare_config(f"openai-{model}", montage, prompt=template, words=fmt.words)
        # Whatever may change a verdict is in the id; what it may cost is not.
        more = f"{'' if detail == 'high' else f'+{detail}'}{'+logprobs' * logprobs}"
        super().__init__(config, f"{model}@{host}+{fmt.name}{more}", fmt)
        self._client, self._model, self._host = client, model, host
        self.budget, self._detail, self._logprobs = budget, detail, logprobs
        self._expected, self._failed, self._told = 0, 0, 0
        _log.warning(
            "%s: montages and instructions of judged episodes are sent to %s, for at most %d "
            "tokens",
            model,
            host,
            budget.limit,
        )

    def _ask(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Judgement]:
        return [self._ask_one(*pair) for pair in zip(prompts, pictures, strict=True)]

    def _ask_one(self, prompt: str, picture: np.ndarray) -> Judgement:
        """Raises BudgetSpent, or EndpointError where going on is of no use."""
        import openai

        text = prompt.replace(IMAGE_TOKEN, "").strip()
        set_aside = max(self._expected, expected_tokens(text, picture, self._detail))
        self.budget.set_aside(set_aside)
        cost = set_aside
        try:
            completion = self._request(text, picture)
            cost = _tokens_used(completion, set_aside)
            judgement = self._judgement_of(completion)
            self._failed = 0
        except openai.APITimeoutError:
            # What was asked in vain may have been answered, and will be on the bill.
            attempts = self._client.max_retries + 1
            cost = set_aside * attempts
            said = f"{self._host} gave no answer within {self._client.timeout:g} s, {attempts} time"
            judgement = self._failure(Reason.DETECTOR_TIMEOUT, f"{said}{'s' * (attempts > 1)}")
        except openai.APIStatusError as error:
            cost = 0
            judgement = self._refusal(error)
        except openai.APIConnectionError as error:
            cost = 0
            why = text_of(error.__cause__ or error)
            text = f"{self._host} cannot be reached ({why}); check {BASE_URL} and the network"
            judgement = self._failure(Reason.DETECTOR_ERROR, text)
        except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError) as error:
            text = f"{self._host} sent no chat completion ({text_of(error)}); check {BASE_URL}"
            judgement = self._failure(Reason.DETECTOR_ERROR, text)
        finally:
            self.budget.settle(set_aside, cost)
        self._expected = max(self._expected, cost if judgement.votes else 0)
        self._tell()
        return judgement

    def _request(self, text: str, picture: np.ndarray) -> Any:
        url = f"data:image/png;base64,{base64.b64encode(_png(picture)).decode()}"
        asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 20} if self._logprobs else {}
        image = {"type": "image_url", "image_url": {"url": url, "detail": self._detail}}
        return self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": [image, {"type": "text", "text": text}]}],
            max_tokens=MAX_TOKENS,
            temperature=0,
            **asked,
        )

    def _judgement_of(self, completion: Any) -> Judgement:
        choice = completion.choices[0]
        refused = getattr(choice.message, "refusal", None)
        answer = choice.message.content or refused or ""
        if not isinstance(answer, str):
            raise TypeError(f"the answer is a {type(answer).__name__}")
        if refused or choice.finish_reason == "content_filter":
            return self._abstention(answer or "(filtered)")
        value = self._format.read(answer)
        p = 1.0 if value is VoteValue.SUCCESS else 0.0
        if self._logprobs and value is not VoteValue.ABSTAIN:
            p = self._probability(choice, value)
        return self._format.judgement(answer, p)

    def _probability(self, choice: Any, value: VoteValue) -> float:
        """Of success, against failure, where the answer's first word begins."""
        steps = choice.logprobs.content
        step = next((s for s in steps if any(map(str.isalnum, s.token))), None)
        best = {VoteValue.SUCCESS: -math.inf, VoteValue.FAIL: -math.inf}
        best[value] = step.logprob
        for other in step.top_logprobs:
            side = _side_of(other.token, self._format)
            if side is not None and side is not value:
                best[side] = max(best[side], other.logprob)
        margin = best[VoteValue.SUCCESS] - best[VoteValue.FAIL]
        # Where the other answer is none of the likeliest, the margin is infinite: 1 or 0.
        return 1.0 / (1.0 + math.exp(-margin)) if margin > -700 else 0.0

    def _abstention(self, answer: str) -> Judgement:
        judgement = self._format.judgement("", math.nan)
        detail = f"the model declines to answer: {' '.join(answer.split())[:100]}"
        return Judgement.unknown(judgement.reason, detail, judgement.votes)

    def _refusal(self, error: Any) -> Judgement:
        """Of an answer with an HTTP status that is an error."""
        import openai

        said = self._without_key(text_of(error.message))
        if error.code in _BLOCKED:
            return self._abstention(said)
        lasting = error.code == "insufficient_quota" or not isinstance(
            error, openai.RateLimitError | openai.InternalServerError | openai.ConflictError
        )
        if lasting and error.status_code != 408:
            raise EndpointError(
                f"{self._host} refuses {self._model}, status {error.status_code}: {said}"
            )
        text = f"{self._host} answers with status {error.status_code}: {said}"
        return self._failure(Reason.DETECTOR_ERROR, text)

    def _failure(self, reason: Reason, detail: str) -> Judgement:
        """What may be better next time.

        Raises:
            EndpointError: it was not, `IN_A_ROW` times.
        """
        self._failed += 1
        if self._failed >= IN_A_ROW:
            self._failed = 0
            raise EndpointError(f"{detail}; that was the {IN_A_ROW}th failure in a row")
        return Judgement.unknown(reason, detail)

    def _without_key(self, text: str) -> str:
        return text.replace(str(self._client.api_key), "(key)")

    def _tell(self) -> None:
        told = self.budget.spent * _TOLD_BEFORE // self.budget.limit
        if told > self._told:
            self._told = told
            _log.warning(
                "%s at %s: %d of %d tokens spent, %d requests by this process",
                self._model,
                self._host,
                self.budget.spent,
                self.budget.limit,
                self.budget.requests,
            )


def expected_tokens(text: str, picture: np.ndarray, detail: str) -> int:
    """What a request may cost, by OpenAI's published rule for GPT-4o's pictures, and generously.

    The picture fits into 2048 x 2048, then its shorter side becomes 768; 85 tokens and 170 for
    each tile of 512 x 512, or 85 where detail is low. The text has a token for two characters.
    """
    tokens = 85
    if detail != "low":
        height, width = picture.shape[:2]
        scale = min(2048 / max(height, width), 768 / min(height, width))
        tokens += 170 * math.ceil(height * scale / 512) * math.ceil(width * scale / 512)
    return tokens + len(text) // 2 + MAX_TOKENS


def _tokens_used(completion: Any, otherwise: int) -> int:
    """As the endpoint says; some say nothing."""
    total = getattr(getattr(completion, "usage", None), "total_tokens", None)
    return total if isinstance(total, int) and total > 0 else otherwise


def _side_of(token: str, fmt: Format) -> VoteValue | None:
    """The answer that a token begins; None where it begins none, or both."""
    start = token.strip().lower()
    sides = {
        value
        for value, words in (
            (VoteValue.SUCCESS, fmt.words.success),
            (VoteValue.FAIL, fmt.words.fail),
        )
        if start and any(word.startswith(start) for word in words)
    }
    return sides.pop() if len(sides) == 1 else None


def _png(picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise ValueError("the montage cannot be encoded as PNG")
    return data.tobytes()
