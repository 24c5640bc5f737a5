"""Joining a Ray cluster on a machine that is busy; with a stand-in for Ray."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.evaluate import ray_crew
from ifailsense_ros.evaluate.ray_crew import RayActors


class StandIn(SimpleNamespace):
    """As much of Ray as is asked before the first worker.

    Args:
        failures: how often it cannot be started.
        late: how often it is asked for its resources before it knows them.
    """

    def __init__(self, failures: int = 0, late: int = 0) -> None:
        super().__init__(calls=[])
        self.failures, self.late = failures, late

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: object) -> None:
        self.calls.append("init")
        if self.calls.count("init") <= self.failures:
            raise RuntimeError("The current node timed out during startup.")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def remote(self, what: object) -> object:
        return what

    def put(self, what: object) -> object:
        return what

    def cluster_resources(self) -> dict[str, float]:
        self.calls.append("resources")
        return {} if self.calls.count("resources") <= self.late else {"CPU": 3.0}


def join(monkeypatch: pytest.MonkeyPatch, ray: StandIn, address: str = "local") -> RayActors:
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_crew, "_REPORTED_WITHIN_S", 0.3)
    return RayActors(None, address, None, threads=1, gpus=0.0)


def test_ray_that_starts_too_slowly_is_started_once_more(monkeypatch):
    ray = StandIn(failures=1)
    assert join(monkeypatch, ray).size == 3
    assert ray.calls == ["init", "shutdown", "init", "resources"]


@pytest.mark.parametrize(
    ("address", "tried", "what"),
    [("local", 2, "cannot be started here"), ("auto", 1, "no such cluster")],
)
def test_ray_that_does_not_start(monkeypatch, address, tried, what):
    ray = StandIn(failures=9)
    with pytest.raises(ConfigError, match=f"--ray {address}: {what} .*timed out during startup"):
        join(monkeypatch, ray, address)
    assert ray.calls.count("init") == tried


def test_machines_that_have_not_reported_yet_are_waited_for(monkeypatch):
    assert join(monkeypatch, StandIn(late=2)).size == 3


def test_a_cluster_without_machines(monkeypatch):
    ray = StandIn(late=10**6)
    with pytest.raises(ConfigError, match="has no room for a worker of 1 cores"):
        join(monkeypatch, ray)
    assert ray.calls[-1] == "shutdown"
