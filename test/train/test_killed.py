"""A run whose process is killed in the middle of each stage ends with the weights of one that was
not: real processes, real SIGKILL."""

import multiprocessing
import os
import random
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import make_store, short

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.train import loop
from ifailsense_ros.train.recipes import SIM_TINY
from ifailsense_ros.train.run import Run

STEPS = 9
STAGES = ("stage0", "stage0-1", "stage1", "stage1-1", "stage2")


def train(store, out, killed_in=None, at_step=-1):
    """In a process of its own; SIGKILLs itself when that stage has computed the step's loss."""
    torch.set_num_threads(1)
    untouched = loop.run

    def run(modules, loss_of_batch, validate, schedule, folder, **more):
        def loss_or_death(number):
            losses = loss_of_batch(number)
            if folder.name == killed_in and number == at_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return losses

        more |= {"save_every": 2, "progress": False}
        return untouched(modules, loss_or_death, validate, schedule, folder, **more)

    loop.run = run
    recipe = short(SIM_TINY, STEPS, eval_every=4)
    recipe = replace(recipe, stage0=(recipe.stage0[0], recipe.stage0[-1]))
    Run(recipe, store, store, out, Ablation()).go()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_every_stage_and_resumed_gives_equal_weights(tmp_path):
    assert len(SIM_TINY.stage1.phases) == 3
    store = make_store(tmp_path / "store")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ifailsense_ros.train.run", "tiny_runs"])

    def process(*arguments):
        child = context.Process(target=train, args=(store, *arguments))
        child.start()
        child.join()
        return child.exitcode

    assert process(tmp_path / "a" / "whole") == 0
    # Features are kept beside a run: other folder, so that this one makes its own.
    cut = tmp_path / "b" / "cut"
    steps = {stage: random.randrange(STEPS) for stage in STAGES}
    print("killed at", steps)  # shown if it fails
    for stage, step in steps.items():
        assert process(cut, stage, step) == -signal.SIGKILL, stage
        assert not (cut / stage / "done.json").exists()
    assert process(cut) == 0
    parts = ("base/language_model", "adapter/adapter_model", "fs_blocks")
    for part in parts:
        whole, resumed = (
            load_file(out / "checkpoint" / f"{part}.safetensors")
            for out in (tmp_path / "a" / "whole", cut)
        )
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[k], resumed[k]) for k in whole), part
    for stage in STAGES:
        logs = [(out / stage / "log.csv").read_text() for out in (tmp_path / "a" / "whole", cut)]
        assert logs[0] == logs[1], stage
