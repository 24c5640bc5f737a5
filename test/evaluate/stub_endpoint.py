"""A local stand-in for an OpenAI-compatible endpoint, with answers by script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[dict[str, Any], int], tuple[int, Any]]
"""(request body, number of the request from 0) -> (HTTP status, body as JSON or text)."""


def said(text: str | None, tokens: int = 1000, **message: Any) -> tuple[int, dict[str, Any]]:
    """A chat completion."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text, **message},
    }
    usage = {"prompt_tokens": tokens - 2, "completion_tokens": 2, "total_tokens": tokens}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [choice],
        "usage": usage,
    }


def refused(status: int, code: str = "", text: str = "no") -> tuple[int, dict[str, Any]]:
    """An error as OpenAI words it."""
    return status, {"error": {"message": text, "type": "error", "param": None, "code": code}}


class Stub:
    """What came in.

    Attributes:
        requests: bodies, in order.
        keys: values of the Authorization header.
        url: of the endpoint.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.url = ""


@contextmanager
def stub_endpoint(script: Script, hang: threading.Event | None = None):
    """Serve the script on a free port of this machine; yields a `Stub`.

    Args:
        script: what to answer.
        hang: where given, nothing is answered before it is set.
    """
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            number = len(stub.requests)
            stub.requests.append(body)
            stub.keys.append(self.headers["authorization"])
            if hang is not None:
                hang.wait(30)
                return
            status, answer = script(body, number)
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            kind = "text/html" if isinstance(answer, str) else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        if hang is not None:
            hang.set()
        server.shutdown()
        thread.join()
        server.server_close()
