"""Killing a stage and running it again gives the same weights; Ctrl-C loses nothing."""

import os
import signal

import pytest
import torch
from torch import nn

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train.loop import Interrupted, Schedule, run


def parts():
    torch.manual_seed(0)
    # Dropout and BatchNorm: random draws and running statistics must resume as well.
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))


def go(module, folder, schedule, at_step=None, save_every=50):
    def loss_of_step(step):
        if at_step and step == at_step[0]:
            at_step[1]()
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": (module(x)[:, 0] - x.sum(1)).pow(2).mean()}

    def validate():
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(10_000))
        return {"score": -float((module(x)[:, 0] - x.sum(1)).pow(2).mean())}

    return run(
        [module], loss_of_step, validate, schedule, folder,
        better="score", progress=False, save_every=save_every,
    )  # fmt: skip


SCHEDULE = Schedule(steps=60, lr=0.01, warmup=5, eval_every=20)


def equal(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_ctrl_c_then_the_same_command_ends_with_equal_weights(tmp_path):
    whole, stopped, resumed = parts(), parts(), parts()
    go(whole, tmp_path / "whole", SCHEDULE)
    interrupt = (33, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="after step 34"):
        go(stopped, tmp_path / "cut", SCHEDULE, interrupt)
    go(resumed, tmp_path / "cut", SCHEDULE)
    assert equal(whole, resumed)


def test_a_killed_run_resumes_from_its_last_save_with_equal_weights(tmp_path):
    class Killed(Exception):
        pass

    def kill():
        raise Killed

    whole, resumed = parts(), parts()
    go(whole, tmp_path / "whole", SCHEDULE)
    with pytest.raises(Killed):
        go(parts(), tmp_path / "cut", SCHEDULE, (47, kill), save_every=10)
    go(resumed, tmp_path / "cut", SCHEDULE)
    assert equal(whole, resumed)


def test_ends_with_the_weights_of_the_validation_optimum_and_stops_early(tmp_path):
    module = parts()
    schedule = Schedule(steps=500, lr=3.0, warmup=1, clip=1e9, eval_every=10, patience=2)
    best = go(module, tmp_path / "run", schedule)
    assert best["step"] < 500
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(10_000))
    with torch.no_grad():
        score = -float((module.eval()(x)[:, 0] - x.sum(1)).pow(2).mean())
    assert score == pytest.approx(best["score"], rel=1e-5)


def test_state_of_another_model_is_refused(tmp_path):
    go(parts(), tmp_path / "run", SCHEDULE)
    with pytest.raises(ConfigError, match="another model"):
        go(nn.Sequential(nn.Linear(4, 1)), tmp_path / "run", SCHEDULE)


def test_learning_rate_rises_then_falls_to_the_final_share():
    s = Schedule(steps=100, lr=1.0, warmup=10, final=0.1)
    rates = [s.lr_at(i) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, rel=0.03)
    assert rates[100] == pytest.approx(0.1)
