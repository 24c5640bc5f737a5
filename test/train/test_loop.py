"""Killing a stage and running it again gives the same weights; Ctrl-C loses nothing."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train import compute
from ifailsense_ros.train.log import read_log
from ifailsense_ros.train.loop import Interrupted, run
from ifailsense_ros.train.optimizers import Optimizers
from ifailsense_ros.train.schedule import Schedule


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


def test_muon_resumes_as_well_and_takes_the_matrices_of_layers_alone(tmp_path):
    schedule = replace(SCHEDULE, muon=2.0)
    whole, stopped, resumed = parts(), parts(), parts()
    go(whole, tmp_path / "whole", schedule)
    with pytest.raises(Interrupted):
        go(stopped, tmp_path / "cut", schedule, (33, lambda: os.kill(os.getpid(), signal.SIGINT)))
    go(resumed, tmp_path / "cut", schedule)
    assert equal(whole, resumed)
    plain = parts()
    go(plain, tmp_path / "plain", SCHEDULE)
    assert not equal(whole, plain)


def test_muon_s_first_step_has_directions_of_equal_length_and_leaves_embeddings_to_adamw():
    torch.manual_seed(0)
    embedding, head = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)
    head.weight = embedding.weight  # tied, as a language model's
    layer = nn.Linear(4, 6)
    before = layer.weight.detach().clone(), embedding.weight.detach().clone()
    module = nn.Sequential(embedding, layer)
    optimizers = Optimizers([nn.ModuleList([module, head])], replace(SCHEDULE, muon=2.0))
    optimizers.set_rate(0.01)
    module(torch.arange(8)).pow(3).sum().backward()
    optimizers.step()
    moved = layer.weight.detach() - before[0] * (1 - 0.02 * SCHEDULE.weight_decay)
    lengths = torch.linalg.svdvals(moved)
    assert lengths.max() < 1.8 * lengths.min()  # Newton-Schulz brings them near one another
    steps = (embedding.weight.detach() - before[1] * (1 - 0.01 * SCHEDULE.weight_decay)).abs()
    assert torch.allclose(steps, torch.full_like(steps, 0.01), rtol=0.02)  # AdamW's first step


def test_a_torch_without_muon_is_told_so(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match=r"torch .* has none: it needs torch 2\.9"):
        Optimizers([nn.Linear(2, 2)], replace(SCHEDULE, muon=1.0))
    Optimizers([nn.Linear(2, 2)], SCHEDULE)


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


def test_batches_of_a_step_add_up_to_the_big_batch(tmp_path):
    """Without dropout and batch normalisation four batches of 8 are one of 32."""
    data = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1))

    def trained(batch, accumulate, folder):
        torch.manual_seed(0)
        module = nn.Linear(4, 1)

        def loss_of_batch(number):
            x = data[number * batch : (number + 1) * batch]
            return {"loss": (module(x)[:, 0] - x.sum(1)).pow(2).mean()}

        schedule = replace(SCHEDULE, steps=50, accumulate=accumulate, clip=0.5)
        run(
            [module], loss_of_batch, lambda: {"score": 1.0}, schedule, folder,
            better="score", progress=False,
        )  # fmt: skip
        return module.weight, read_log(folder)

    (small, small_log), (big, big_log) = (
        trained(8, 4, tmp_path / "small"), trained(32, 1, tmp_path / "big"),
    )  # fmt: skip
    assert torch.allclose(small, big, atol=1e-6)
    for (step, name, value), (*place, other) in zip(small_log, big_log, strict=True):
        assert [step, name] == place
        assert value == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_what_a_killed_run_logged_after_its_last_state_is_not_there_twice(tmp_path):
    go(parts(), tmp_path / "whole", SCHEDULE)

    def kill():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(parts(), tmp_path / "cut", SCHEDULE, (57, kill), save_every=15)
    with (tmp_path / "cut" / "log.csv").open("a") as f:
        f.write("50,los")  # cut short
    go(parts(), tmp_path / "cut", SCHEDULE)
    assert read_log(tmp_path / "cut") == read_log(tmp_path / "whole")


def test_a_loss_that_is_no_number_stops_the_stage_with_one_line(tmp_path):
    module = nn.Linear(1, 1)

    def loss_of_batch(number):
        return {"loss": module(torch.full((1, 1), math.inf)).mean()}

    with pytest.raises(ConfigError, match="lower the learning rate") as error:
        run(
            [module], loss_of_batch, lambda: {"score": 1.0}, SCHEDULE, tmp_path / "run",
            better="score", progress=False,
        )  # fmt: skip
    assert "run: loss is" in str(error.value)
    assert not (tmp_path / "run" / "done.json").exists()


def test_metrics_go_to_tensorboard_where_it_is_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(compute, "_accelerator", None)
    made = compute.set_up(log_with="tensorboard", folder=tmp_path)
    go(parts(), tmp_path / "stage0", SCHEDULE)
    made.end_training()
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent))
    events.Reload()
    logged = [(e.step, e.value) for e in events.Scalars("stage0/loss")]
    rows = [(s, v) for s, name, v in read_log(tmp_path / "stage0") if name == "loss"]
    assert [s for s, _ in logged] == [s for s, _ in rows]
    assert [v for _, v in logged] == pytest.approx([v for _, v in rows], rel=1e-4)


def test_a_run_does_not_go_on_with_steps_of_another_size(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(parts(), tmp_path / "run", SCHEDULE, (30, stop))
    with pytest.raises(ConfigError, match="1 batches a step"):
        go(parts(), tmp_path / "run", replace(SCHEDULE, accumulate=2))
