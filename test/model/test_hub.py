"""Checkpoints on the hub, against a small server that speaks its protocol on this machine."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import authors_oracle as oracle
import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from tiny_models import base_config, build_model

from ifailsense_ros import cli
from ifailsense_ros.core.checkpoint import CONFIG_FILE, BaseModel, sha256_of
from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.model.authors_adapter import read_adapter
from ifailsense_ros.model.checkpoint import load_checkpoint
from ifailsense_ros.model.convert import check_made_on, convert, read_base
from ifailsense_ros.model.hub import fetch_checkpoint, find_checkpoint, parse_spec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = "hub:lab/tiny@v1"


class Hub:
    """One repository, `lab/tiny`, of which v1 and main are one commit; remembers what was read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
                status, data, kind = hub.content(path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("ETag", f'"{sha1(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                if status == 404:
                    missing = "RevisionNotFound" if "/revision/" in path else "EntryNotFound"
                    missing = missing if "lab/tiny" in path else "RepoNotFound"
                    self.send_header("X-Error-Code", missing)
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def content(self, path: str) -> tuple[int, bytes, str]:
        names = [p for p in self.folder.rglob("*") if p.is_file()]
        if path in (f"/api/models/lab/tiny/revision/{r}" for r in ("v1", "main", COMMIT)):
            return 200, json.dumps({"id": "lab/tiny", "sha": COMMIT}).encode(), "application/json"
        if path == f"/api/models/lab/tiny/tree/{COMMIT}":
            listed = [
                {
                    "type": "file",
                    "path": p.relative_to(self.folder).as_posix(),
                    "size": p.stat().st_size,
                    "oid": sha1(p.read_bytes()).hexdigest(),
                }
                for p in names
            ]
            return 200, json.dumps(listed).encode(), "application/json"
        name = re.sub(f"^/lab/tiny/resolve/(v1|main|{COMMIT})/", "", path)
        if name != path and (self.folder / name).is_file():
            self.read.append(name)
            return 200, (self.folder / name).read_bytes(), "application/octet-stream"
        return 404, b"{}", "application/json"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """The repository holds a checkpoint (of made-up weights) and things that it does not list."""
    folder = tmp_path / "repository"
    contents = {
        "base/config.json": "{}",
        "base/model.safetensors": "weights",
        "fs_blocks.safetensors": "heads",
    }
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    files = {name: sha256_of(folder / name) for name in contents}
    config = base_config(
        base=BaseModel(folder="base"), fs_blocks="fs_blocks.safetensors", files=files
    )
    (folder / CONFIG_FILE).write_text(config.to_json())
    (folder / "base" / "pytorch_model.bin").write_text("a pickle")
    (folder / "README.md").write_text("a card")
    hub = Hub(folder)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def asked(monkeypatch) -> list[bool]:
    """Of every call of the hub's client: whether it was allowed to use the network."""
    calls: list[bool] = []
    real = huggingface_hub.snapshot_download

    def snapshot_download(*args, local_files_only: bool, **kwargs):
        calls.append(not local_files_only)
        return real(*args, local_files_only=local_files_only, **kwargs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_what_the_settings_list_is_fetched_once_and_nothing_else(hub, asked, revision):
    spec = f"hub:lab/tiny@{revision}"
    folder = fetch_checkpoint(spec)
    assert set(hub.read) == {
        CONFIG_FILE,
        "base/config.json",
        "base/model.safetensors",
        "fs_blocks.safetensors",
    }
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == set(hub.read)
    assert True in asked
    asked.clear()
    hub.server.shutdown()
    assert find_checkpoint(spec) == folder  # from the cache, without a look at the network
    assert not any(asked)


def test_the_command_checks_what_it_fetched(hub, capsys):
    assert cli.main(["check", "--quick", SPEC]) == 0
    assert "tiny-test@" in capsys.readouterr().out
    (hub.folder / "fs_blocks.safetensors").write_text("other")
    # altered on the way: the cache's file is not what the settings say
    blob = (fetch_checkpoint(SPEC) / "fs_blocks.safetensors").resolve()
    blob.write_text("other")
    assert cli.main(["check", "--quick", SPEC]) == 2
    assert "was altered or cut short" in capsys.readouterr().err


def test_an_interrupted_download_goes_on(hub, asked):
    folder = fetch_checkpoint(SPEC)
    (folder / "base" / "model.safetensors").unlink()
    hub.read.clear()
    asked.clear()
    assert fetch_checkpoint(SPEC) == folder
    assert (folder / "base" / "model.safetensors").read_text() == "weights"
    assert set(hub.read) <= {"base/model.safetensors"}
    assert True in asked


def _refused(spec: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        find_checkpoint(spec)
    assert "\n" not in str(error.value)


def test_repositories_that_are_no_checkpoints(hub):
    _refused("hub:lab/other@v1", "hub:lab/other@v1: cannot be fetched")
    _refused("hub:lab/tiny@v2", "hub:lab/tiny@v2: cannot be fetched")
    (hub.folder / "fs_blocks.safetensors").unlink()
    _refused(SPEC, f"lacks files that its {CONFIG_FILE} lists")


def test_a_repository_of_the_authors(hub):
    (hub.folder / CONFIG_FILE).unlink()
    _refused(SPEC, "holds no checkpoint.json; convert the authors' files")


def test_settings_that_are_damaged(hub):
    (hub.folder / CONFIG_FILE).write_text("{")
    _refused(SPEC, "not readable as JSON")


def test_no_network_and_nothing_cached(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refused(SPEC, "hub:lab/tiny@v1: cannot be fetched")
    assert not hub.read


def test_a_base_on_the_hub(hub, tmp_path):
    """The conversion fetches its settings only, and pins the commit; loading fetches the weights.
    An adapter that names another repository is refused.
    """
    shutil.rmtree(hub.folder)
    model, processor = build_model("siglip", (28, 28))
    model.save_pretrained(hub.folder)
    processor.save_pretrained(hub.folder)
    model.name_or_path = "lab/tiny"
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    oracle.save_adapter(adapted, tmp_path / "adapter", "before 4.52")
    torch.save(oracle.Heads(32).file(), tmp_path / "fs.pt")
    small = {"widths": (16, 8), "cell": (14, 14), "num_pov": 2, "layers": (0, 1, 2)}
    parts = (tmp_path / "fs.pt", tmp_path / "adapter")
    config = convert(*parts, "lab/tiny@v1", tmp_path / "named", **small).config
    assert "model.safetensors" not in hub.read
    assert config.base == BaseModel(hub="lab/tiny", revision=COMMIT)
    config = convert(*parts, "lab/tiny", tmp_path / "out", **small).config
    assert config.base == BaseModel(hub="lab/tiny", revision=COMMIT)
    assert not any(name.startswith("base/") for name in config.files)
    loaded = load_checkpoint(tmp_path / "out")
    assert "model.safetensors" in hub.read
    weight = loaded.model.get_input_embeddings().weight
    assert torch.equal(weight, model.get_input_embeddings().weight)
    adapter = read_adapter(tmp_path / "adapter", read_base("lab/tiny").model)
    with pytest.raises(CheckpointError, match="was made on lab/tiny, --base names lab/other"):
        check_made_on(adapter, BaseModel(hub="lab/other"), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("hub:lab/tiny@v1", ("lab/tiny", "v1")),
        (f"hub:Lab-1/tiny.model_2@{COMMIT}", ("Lab-1/tiny.model_2", COMMIT)),
        ("hub:lab/tiny@refs/pr/1", ("lab/tiny", "refs/pr/1")),
    ],
)
def test_specs(spec, parts):
    assert parse_spec(spec) == parts


@pytest.mark.parametrize(
    "spec",
    [
        *("hub:", "hub:lab", "hub:lab/tiny", "hub:lab/tiny@", "hub:/tiny@v1", "hub:lab/tiny@../x"),
        *("hub:lab/../tiny@v1", "hub:a/b/c@v1", "hub:lab/tiny@v1\n", "hub:lab/tiny@v 1"),
    ],
)
def test_specs_that_are_none_do_not_reach_the_network(hub, asked, spec):
    _refused(spec, "write hub:<org>/<name>@<revision>")
    assert not asked
    assert cli.main(["detect", "--detector", spec, "nowhere"]) == 2


@pytest.mark.parametrize("spec", ["sim-tinyy", "/no/such/folder", "lab/tiny", "lab/tiny@v1"])
def test_other_names_never_reach_the_network(hub, asked, spec):
    _refused(spec, "neither a checkpoint of this package")
    assert not asked
