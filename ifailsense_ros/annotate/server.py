"""The page's server: this machine only, and only who has the address that was printed.

Every address begins with a token drawn at the start, so that another site's page, which the same
browser may show, cannot guess one. Beside that: the name asked for must be this machine's (a
foreign name that resolves to it is refused), whoever writes must come from this page, and the page
loads nothing from elsewhere and can be in no other's frame.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from ifailsense_ros.annotate.pictures import KEYFRAMES, picture_of
from ifailsense_ros.annotate.session import WORDS, Session
from ifailsense_ros.annotate.verdicts import NoVerdicts, Verdicts
from ifailsense_ros.core.errors import ConfigError, IFailSenseError, text_of

ADDRESS = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LARGEST_BODY = 1000
_KEPT_PICTURES = 16
_TIMEOUT_S = 60


class AnnotationServer(ThreadingHTTPServer):
    """Serves one session.

    Args:
        session: of labels.
        verdicts: shown on request.
        port: 0 takes any that is free.
        keyframes: columns of the pictures.

    Attributes:
        url: with the token; what a browser is pointed at.

    Raises:
        ConfigError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        session: Session,
        verdicts: Verdicts | None = None,
        *,
        port: int = 0,
        keyframes: int = KEYFRAMES,
    ) -> None:
        self.session = session
        self.verdicts = verdicts or NoVerdicts()
        self.token = secrets.token_urlsafe(18)
        self._keyframes = keyframes
        self._pictures: OrderedDict[int, bytes] = OrderedDict()
        self._mutex = threading.Lock()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--port {port}: cannot be had ({text_of(error)}); give another, or 0 for any"
            ) from None
        self.url = f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def picture(self, number: int) -> bytes:
        """JPEG of an episode; the last few are kept.

        Raises:
            DataError: it cannot be read.
        """
        with self._mutex:  # one at a time: decoding is what takes long
            if number not in self._pictures:
                record = self.session.episodes[number].record
                self._pictures[number] = picture_of(record, self._keyframes)
                while len(self._pictures) > _KEPT_PICTURES:
                    self._pictures.popitem(last=False)
            self._pictures.move_to_end(number)
            return self._pictures[number]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As the base class, but a browser that went away in mid-answer is no error."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Refused(Exception):
    """Answered with a status and one line."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: AnnotationServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ifailsense", ""
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for the person."""

    # --- answers

    def _get(self, place: list[str]) -> tuple[str, bytes]:
        session = self.server.session
        if len(place) == 1 and place[0] in _FILES:
            name, kind = _FILES[place[0]]
            return kind, resources.files(__package__).joinpath("page", name).read_bytes()
        if place == ["api", "state"]:
            return _json({**self._state(), "words": list(WORDS), "file": session.file.name})
        if place[:-1] == ["api", "episode"]:
            return _json(self._episode(self._number(place[-1])))
        if place[:-1] == ["api", "verdict"]:
            found = session.episodes[self._number(place[-1])]
            own = {True: "success", False: "failure", None: ""}[found.record.success]
            return _json({"verdicts": self.server.verdicts.of(found), "data_says": own})
        if place[:-1] == ["picture"]:
            return "image/jpeg", self.server.picture(self._number(place[-1]))
        raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self, place: list[str]) -> tuple[str, bytes]:
        content = self._body()
        session = self.server.session
        if place == ["api", "label"]:
            word = content.get("label")
            if word not in WORDS:
                raise _Refused(HTTPStatus.BAD_REQUEST, f"label: one of {', '.join(WORDS)}")
            number = self._number(content.get("number"))
            session.label(number, word)
            return _json({**self._state(number), "number": number})
        if place == ["api", "undo"]:
            number = session.undo()
            return _json({**self._state(), "number": number})
        raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def _state(self, after: int = -1) -> dict[str, Any]:
        session = self.server.session
        return {"counts": session.counts(), "next": session.next_open(after)}

    def _episode(self, number: int) -> dict[str, Any]:
        found = self.server.session.episodes[number]
        return {
            "number": number,
            "path": found.path,
            "key": found.key,
            "instruction": found.instruction,
            "label": self.server.session.label_of(number),
            "next": self.server.session.next_open(number),
        }

    def _number(self, text: Any) -> int:
        count = len(self.server.session.episodes)
        if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10:
            text = int(text)
        if type(text) is not int or not 0 <= text < count:
            raise _Refused(HTTPStatus.NOT_FOUND, f"there are episodes 0 to {count - 1}")
        return text

    def _body(self) -> dict[str, Any]:
        """The JSON object that was sent.

        A page of another site can only send forms and plain text without asking first.
        """
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long, or of unknown length")
        try:
            content = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "send a JSON object")
        return content

    # --- who may ask

    def _checked(self) -> list[str]:
        """The parts of the address behind the token.

        Raises:
            _Refused: not from here, or without the token.
        """
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            host = None
        if host not in _NAMES:
            raise _Refused(HTTPStatus.FORBIDDEN, f"ask for http://{ADDRESS}, not another name")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers['Host']}":
            raise _Refused(HTTPStatus.FORBIDDEN, "asked from another site")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _Refused(HTTPStatus.FORBIDDEN, "asked from another site")
        _, _, behind = self.path.partition("?")[0].partition("/")
        token, *place = behind.split("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            text = "open the address that `ifailsense annotate` printed, all of it"
            raise _Refused(HTTPStatus.FORBIDDEN, text)
        return place

    def _answer(self, of: Callable[[list[str]], tuple[str, bytes]]) -> None:
        status = HTTPStatus.OK
        try:
            kind, data = of(self._checked())
        except _Refused as refusal:
            # What was sent may not have been read: the next request must not begin in it.
            self.close_connection = True
            status, (kind, data) = refusal.status, _json({"error": str(refusal)})
        except IFailSenseError as error:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            kind, data = _json({"error": str(error)})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _json(content: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(content).encode()
