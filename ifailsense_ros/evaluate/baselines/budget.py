"""What requests to an endpoint may cost: tokens counted, and an end of it.

A ledger is a file of one JSON object a line, {"time", "model", "tokens", "what"}, appended only.
Several processes may share one, and a process that is killed leaves what it had set aside.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ifailsense_ros.core.errors import ConfigError, DetectorStopped, text_of


class BudgetSpent(DetectorStopped):
    """The next request could cost more than is left."""


class Budget:
    """Counts tokens, in memory or in a ledger.

    Args:
        limit: tokens in all, prompts and answers.
        model: for the ledger's lines.
        ledger: file to count in together with others and across restarts; None: this object alone.

    Raises:
        ConfigError: the ledger cannot be read or written.
    """

    def __init__(self, limit: int, model: str, ledger: str | Path | None = None) -> None:
        self.limit, self.requests = limit, 0
        self._model, self._spent, self._read_up_to = model, 0, 0
        self._path = None if ledger is None else Path(ledger).expanduser()
        if self._path is not None:
            self._append(0, "opened")
            self._read_on()

    @property
    def spent(self) -> int:
        """Tokens, what is set aside included."""
        return self._spent

    def set_aside(self, tokens: int) -> None:
        """Before a request: the most it is expected to cost.

        Raises:
            BudgetSpent: more than is left.
        """
        self._read_on()
        if self._spent + tokens > self.limit:
            where = "" if self._path is None else f" according to {self._path}"
            raise BudgetSpent(
                f"{self._model}: {self._spent} of the budget of {self.limit} tokens are "
                f"spent{where}, and the next request may need {tokens}; give a larger budget=, or "
                "stop here"
            )
        self._count(tokens, "set aside")
        self.requests += 1

    def settle(self, set_aside: int, tokens: int) -> None:
        """After a request: what it did cost."""
        self._count(tokens - set_aside, "settled")

    def _count(self, tokens: int, what: str) -> None:
        if self._path is None:
            self._spent += tokens
        else:
            self._append(tokens, what)
            self._read_on()

    def _append(self, tokens: int, what: str) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": now, "model": self._model, "tokens": tokens, "what": what}
        try:
            # One write of a short line at the file's end: lines of several processes do not mix.
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, f"{json.dumps(line)}\n".encode())
            finally:
                os.close(file)
        except OSError as error:
            raise ConfigError(
                f"ledger {self._path}: cannot be written ({error.strerror}); give another file"
            ) from None

    def _read_on(self) -> None:
        """Count the lines that were added since the last call, by whomever."""
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_up_to)
                lines = file.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            counts = [json.loads(line)["tokens"] for line in whole.splitlines()]
            self._spent += sum(map(int, counts))
            self._read_up_to += len(whole)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"ledger {self._path}: cannot be read ({text_of(error)}); give another file"
            ) from None
