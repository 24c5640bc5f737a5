"""The page's server: what it answers, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotate_doubles import HOSTILE, found, record, unreadable

from ifailsense_ros.annotate.episodes import Found
from ifailsense_ros.annotate.pictures import picture_of
from ifailsense_ros.annotate.server import AnnotationServer
from ifailsense_ros.annotate.session import Session
from ifailsense_ros.annotate.verdicts import FreshVerdicts, KeptVerdicts, NoVerdicts
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.evaluate.labels import read_labels
from ifailsense_ros.evaluate.results import Result, write_results

PAGE = Path(__file__).parents[2] / "ifailsense_ros" / "annotate" / "page"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AnnotationServer]:
    episodes = found(tmp_path)
    episodes[1] = Found(episodes[1].path, "monday/1", record(1, instruction=HOSTILE))
    episodes[2] = Found(episodes[2].path, "monday/2", unreadable(2))
    session = Session(episodes, tmp_path / "labels.csv")
    with AnnotationServer(session) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
    session.close()


def ask(server, path, content=None, *, token=None, method=None, **headers):
    """(status, headers, body) of a request; header names with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    body = None if content is None else json.dumps(content)
    sent = {k.replace("_", "-"): v for k, v in headers.items()}
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    address = f"/{server.token if token is None else token}/{path}"
    connection.request(method or ("GET" if body is None else "POST"), address, body, sent)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if answer.headers.get_content_type() == "application/json":
        data = json.loads(data)
    return answer.status, answer.headers, data


def test_labels_go_into_the_file(server):
    status, _, state = ask(server, "api/state")
    assert (status, state["next"]) == (200, 0)
    status, _, said = ask(server, "api/label", {"number": 0, "label": "failure"})
    assert (status, said["next"], said["counts"]["failure"]) == (200, 1, 1)
    assert [n.label for n in read_labels(server.session.file).values()] == [False]
    assert ask(server, "api/episode/0")[2]["label"] == "failure"
    assert ask(server, "api/undo", {})[2]["number"] == 0
    assert ask(server, "api/undo", {})[2]["number"] is None
    assert read_labels(server.session.file) == {}


def test_the_picture_has_a_row_for_each_camera(server):
    status, headers, data = ask(server, "picture/0")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = picture.shape[:2]
    assert abs(width - 5 * 323) <= 1  # five time steps, although six columns are asked for
    assert 240 + 320 < height < 240 + 320 + 60
    assert abs(int(picture[120, 160].mean()) - 40) < 4
    assert abs(int(picture[243 + 160, 160].mean()) - 215) < 4


def test_a_picture_that_cannot_be_read_is_a_line(server):
    status, _, said = ask(server, "picture/2")
    assert status == 500
    assert said["error"] == "monday.mcap: ends too early; copy it again"


def test_one_keyframe_is_a_picture():
    assert picture_of(record(0), keyframes=1)[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("api/episode/5", None, 404),
        ("api/episode/-1", None, 404),
        ("api/episode/x", None, 404),
        ("api/episode/" + 40 * "1", None, 404),
        ("../../etc/passwd", None, 404),
        ("page.py", None, 404),
        ("api/label", {"number": 0, "label": "perhaps"}, 400),
        ("api/label", {"number": True, "label": "success"}, 404),
        ("api/label", {"number": 7, "label": "success"}, 404),
        ("api/label", [1], 400),
        ("api/label", {"label": 2000 * "x"}, 413),
        ("api/nothing", {}, 404),
    ],
)
def test_nonsense_is_refused(server, path, content, status):
    assert ask(server, path, content)[0] == status
    assert not server.session.file.exists()


LABEL = {"number": 0, "label": "success"}


@pytest.mark.parametrize(
    "request_",
    [
        {"token": "x"},
        {"token": ""},
        {"token": "caf%C3%A9"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another server on this machine
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Content_Type": "text/plain"},  # what a form of another site can send unasked
        {"Content_Type": "application/x-www-form-urlencoded"},
    ],
)
def test_others_are_refused(server, request_):
    status, _, said = ask(server, "api/label", LABEL, **request_)
    assert status in (403, 415)
    assert "\n" not in said["error"]
    if "Content_Type" not in request_:
        assert ask(server, "", **request_)[0] == 403
        assert ask(server, "picture/0", **request_)[0] == 403
    assert not server.session.file.exists()


def test_the_page_itself_may_write(server):
    origin = f"http://127.0.0.1:{server.server_port}"
    status, _, _ = ask(server, "api/label", LABEL, Origin=origin, Sec_Fetch_Site="same-origin")
    assert status == 200
    tunnel = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    assert ask(server, "api/label", LABEL, **tunnel)[0] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_do_nothing(server, method):
    assert ask(server, "api/label", LABEL, method=method)[0] == 501
    assert not server.session.file.exists()


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 20


def test_nothing_of_the_page_comes_from_elsewhere(server):
    for name in ("", "page.js", "page.css"):
        status, headers, data = ask(server, name)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not re.findall(rb"https?://", data)
    assert "innerHTML" not in (PAGE / "page.js").read_text()
    assert ask(server, "api/episode/1")[1]["Content-Type"] == "application/json"


def test_a_taken_port_is_one_line(server, tmp_path):
    with pytest.raises(ConfigError, match=f"--port {server.server_port}"):
        AnnotationServer(server.session, port=server.server_port)
    with pytest.raises(ConfigError, match="--port 70000"):
        AnnotationServer(server.session, port=70000)


def test_verdicts_are_told_only_when_asked(server, tmp_path):
    path = server.session.episodes[0].path
    nan = float("nan")
    kept = Result(
        *("tiny@1234", path, "monday/0", "lift block 0", None, "", "", "", 2, 0, "", 0.125),
        *(("fs:1", "vlm"), (0, 3), (0.1, nan), (1.0, 2.0), "", 0, 0),
    )
    write_results(tmp_path / "results", [kept], {})
    server.verdicts = KeptVerdicts(tmp_path / "results")
    before = ask(server, "api/episode/0")[2]
    assert set(before) == {"number", "path", "key", "instruction", "label", "next"}
    (said,) = ask(server, "api/verdict/0")[2]["verdicts"]
    assert said == {
        "detector": "tiny@1234",
        "verdict": "FAILURE",
        "p_success": 0.125,
        "detail": "",
        "votes": [["fs:1", "fail"], ["vlm", "not_run"]],
    }
    assert ask(server, "api/verdict/1")[2] == {"verdicts": [], "data_says": ""}
    assert NoVerdicts().of(server.session.episodes[0]) == []


def test_a_detector_judges_when_asked(server, tmp_path):
    server.verdicts = FreshVerdicts("baseline:always-failure")
    (said,) = ask(server, "api/verdict/0")[2]["verdicts"]
    assert (said["verdict"], said["p_success"]) == ("FAILURE", 0.0)
    assert said["detector"] == "always-failure"
    server.verdicts = FreshVerdicts("no-such-checkpoint")
    status, _, said = ask(server, "api/verdict/0")
    assert status == 500
    assert "no-such-checkpoint" in said["error"]
