"""The latency benchmark runs the real nodes and accounts for all of the time."""

import json
import os
import subprocess
import sys

import pytest


def benchmark(*args, domain_id=0):
    return subprocess.run(
        [sys.executable, "-m", "gena3d_ros.benchmark", "latency", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "ROS_DOMAIN_ID": str(domain_id)},
        timeout=280,
    )


@pytest.mark.slow
def test_stages_add_up_to_the_total(ros):
    args = ("--input", "sim:random:1:3", "--views", "2", "--repeats", "1", "--parameter", "max_faces:=2000")
    process = benchmark(*args, domain_id=ros.domain_id)
    assert process.returncode == 0, process.stderr
    figures = json.loads(process.stdout)
    assert (figures["views"], figures["repeats"]) == (2, 1)
    assert figures["objects"] >= 1
    assert figures["total_s_min"] <= figures["total_s"] <= figures["total_s_max"]
    stages = figures["stages_s"]
    assert {"accumulate", "queue", "settle", "views", "stereo", "segmentation", "generation", "publish"} <= set(stages)
    assert sum(stages.values()) == pytest.approx(figures["total_s"], abs=0.01)


def test_input_that_is_not_there_is_one_line(ros):
    process = benchmark("--input", "/no/such/folder", domain_id=ros.domain_id)
    assert process.returncode == 1
    assert "no such file or folder" in process.stderr
    assert "Traceback" not in process.stderr
