"""The pipeline with stereo matchers that find poses: one computation a scene, warnings in the scene, clear refusals."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.errors import DataFormatError, InputError, StageError
from gena3d_core.pipeline import Pipeline, PipelineConfig
from gena3d_core.stereo import STEREO_MATCHERS
from gena3d_core.stereo.placement import StereoResult


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    """No weights of this machine are found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def table(solids):
    """Two objects on a table, from four sides."""
    things = [solids.Sphere((0.0, 0.0, 0.06), 0.06), solids.Box((0.25, 0.1, 0.05), (0.05, 0.04, 0.05))]
    eyes = [(0.8, 0.1, 0.55), (0.1, 0.8, 0.5), (-0.6, 0.0, 0.6), (0.1, -0.7, 0.55)]
    return [solids.render(things, eye, (0.1, 0.05, 0.03), name=f"view{i}")[0] for i, eye in enumerate(eyes)]


class Oracle:
    """Finds the poses and depth of views that it knows, and counts."""

    def __init__(self, known, metric=True):
        self.known, self.metric, self.calls = known, metric, 0

    def __call__(self, views):
        return list(self.match(views).views)

    def match(self, views):
        self.calls += 1
        warnings = () if self.metric else ("oracle: sizes are up to scale",)
        return StereoResult(tuple(self.known), self.metric, {"stereo_metric": float(self.metric)}, warnings)


def photo(view):
    return replace(view, T_world_camera=np.eye(4), depth_m=None, pose_known=False)


def test_a_scene_is_matched_once_and_its_objects_share_it(table, monkeypatch):
    oracle = Oracle(table, metric=False)
    monkeypatch.setattr("gena3d_core.stereo.STEREO_MATCHERS", {**STEREO_MATCHERS, "pi3": lambda **_: oracle})
    pipeline = Pipeline(PipelineConfig(stereo="pi3", generator="observed", refine_poses=False))
    result = pipeline.run([photo(view) for view in table])
    assert oracle.calls == 1
    assert len(result.scene.objects) == 2
    assert "oracle: sizes are up to scale" in result.scene.warnings
    assert result.scene.residuals["stereo_metric"] == 0.0
    for observation in result.observations:
        assert all(a is b for a, b in zip(observation.views, result.views, strict=True))


def test_auto_takes_weights_that_are_here_and_says_so(table, monkeypatch):
    oracle = Oracle(table)
    monkeypatch.setattr("gena3d_core.stereo.STEREO_MATCHERS", {**STEREO_MATCHERS, "pi3": lambda **_: oracle})
    here = {"pi3": "here"}
    monkeypatch.setattr("gena3d_core.stereo.choice.present_folder", lambda model: here.get(model.name))
    monkeypatch.setattr("gena3d_core.stereo.choice.find_spec", lambda name: None)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("gena3d")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        pipeline = Pipeline(PipelineConfig(generator="observed"))
        pipeline.run([photo(view) for view in table])
        assert oracle.calls == 1
        pipeline.run(table)
        assert oracle.calls == 1
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert [text for record in records if "auto chose" in (text := record.getMessage())] == [
        "stereo: auto chose 'pi3': a view has no pose, and its weights are here "
        "(code BSD-3-Clause, weights CC BY-NC 4.0 (non-commercial use only))",
        "stereo: auto chose 'depth_camera': every view has depth and a pose",
    ]


def test_weights_that_are_absent_fail_before_any_view_is_looked_at():
    with pytest.raises(DataFormatError, match="hf download yyfz233/Pi3"):
        Pipeline(PipelineConfig(stereo="pi3", generator="observed"))


@pytest.mark.parametrize("stereo", ["depth_camera", "plane_sweep"])
def test_views_without_poses_are_refused_where_poses_are_needed(table, stereo):
    pipeline = Pipeline(PipelineConfig(stereo=stereo, generator="observed"))
    with pytest.raises((InputError, StageError), match="without camera poses"):
        pipeline.run([photo(view) for view in table])
