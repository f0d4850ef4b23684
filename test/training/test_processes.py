"""Two processes under torchrun train one network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path

import torch
import torch.distributed as dist

from training import train
from training.loop import Run

runs = []
keep = Run.__init__
def noted(self, *args, **more):
    keep(self, *args, **more)
    runs.append(self)
Run.__init__ = noted

recipe = train.make_recipe(sys.argv[2], sys.argv[3:])
finished = train.run_recipe(recipe, sys.argv[2], lambda: False)
run = runs[0]
found = {
    "finished": finished,
    "step": run.step,
    "parameters": [float(p.double().sum()) for p in run.parameters.values()],
    "random": torch.rand(1).item(),
}
Path(sys.argv[1], f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_stay_equal_and_one_of_them_writes(shards, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [f"data={shards}", f"out={tmp_path / 'run'}", "batch=4", "max_steps=3", "evaluate_count=2", "accumulate=2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), str(tmp_path), "vae_tiny", *words, "device=cpu"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["finished"]
    assert second["finished"]
    assert first["step"] == second["step"] == 3
    assert first["parameters"] == second["parameters"]
    rows = (tmp_path / "run" / "losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "3"]
