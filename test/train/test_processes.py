"""The same command in two processes on one CPU, over gloo.

accelerate's launcher starts GPU processes as torchrun does, and CPU processes only through MPI: so
one process is launched by it here, and two by torchrun.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import make_store

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from dataclasses import replace
sys.path.insert(0, {here!r})
from tiny_runs import short
from ifailsense_ros.train import recipes, run

def twice(part):
    return replace(part, schedule=replace(part.schedule, accumulate=2))

made = short(recipes.SIM_TINY, steps=3, eval_every=3)
made = replace(
    made,
    stage0=tuple(map(twice, made.stage0[-1:])),
    stage1=replace(made.stage1, dropout=0.0, phases=tuple(map(twice, made.stage1.phases))),
)
recipes.RECIPES["sim-tiny"] = made
sys.exit(run.main())
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_share_the_batches_of_a_step(tmp_path):
    store = make_store(tmp_path / "store")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launch = {
        1: ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"],
        2: ["torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"],
    }
    launch[1] += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    launch[2] += ["--rdzv-backend", "c10d"]
    environment["ACCELERATE_USE_CPU"] = "true"
    weights = {}
    for count in (1, 2):
        out = tmp_path / f"with{count}" / "run"
        arguments = ["--train", str(store), "--validation", str(store), "--out", str(out)]
        arguments += ["--precision", "fp32", "--threads", "1"]
        done = subprocess.run(
            [sys.executable, "-m", *launch[count], str(script), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-8000:]
        assert json.loads(done.stdout) == json.loads((out / "figures.json").read_text())
        assert f"{count} process" in (out / "card.md").read_text()
        weights[count] = load_file(out / "checkpoint" / "adapter" / "adapter_model.safetensors")
    # Stages 0 and 1 have seen the same batches, in the same steps.
    assert weights[1].keys() == weights[2].keys()
    for name, alone in weights[1].items():
        assert torch.allclose(alone.float(), weights[2][name].float(), atol=2e-3), name
