"""Structure from motion against cameras that are known."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.errors import InputError, MissingDependencyError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.similarity_fit import fit_cameras
from gena3d_core.stereo import make_stereo_matcher, match_views
from gena3d_core.stereo.plane_sweep import PlaneSweepConfig

EYES = ((0.55, -0.15, 0.55), (0.58, 0.0, 0.52), (0.55, 0.15, 0.55))
SCENE = {"planes": [((0, 0, 1), 0.0), ((-1, 0, 0), 0.5)], "spheres": [((0.0, 0.0, 0.08), 0.1)]}
QUICK = {
    "max_features": 1000,
    "threads": 1,
    "thorough": False,
    "sweep": PlaneSweepConfig(refine_poses=False, fine_width=160),
}


@pytest.fixture(scope="module")
def views(analytic_view):
    target = np.array([0.0, 0.0, 0.05])
    return [
        analytic_view(transforms.look_at(np.array(eye), target), **SCENE, name=f"view {i}")
        for i, eye in enumerate(EYES)
    ]


@pytest.fixture
def sfm():
    pytest.importorskip("pycolmap")
    return make_stereo_matcher("sfm", **QUICK)


def photo(view, **changes):
    return replace(view, **{"T_world_camera": np.eye(4), "depth_m": None, "pose_known": False, **changes})


def test_poses_of_photographs(sfm, views):
    result = match_views(sfm, [photo(view) for view in views])
    assert not result.metric
    assert any("up to scale" in text for text in result.warnings)
    assert result.residuals["sfm_views_placed_share"] == 1.0
    assert result.residuals["sfm_residual_px"] < 1.0
    fit = fit_cameras(
        np.stack([view.T_world_camera for view in result.views]), np.stack([view.T_world_camera for view in views])
    )
    assert fit.rmse_m < 0.01
    assert fit.rotation_deg.max() < 1.0
    ratios = [np.nanmedian(b.depth_m * fit.scale / a.depth_m) for a, b in zip(views, result.views, strict=True)]
    np.testing.assert_allclose(ratios, 1.0, atol=0.03)


def test_depth_of_one_view_gives_metres(sfm, views):
    known = [views[0], photo(views[1]), photo(views[2])]
    result = match_views(sfm, known)
    assert result.metric
    for view, back in zip(views, result.views, strict=True):
        np.testing.assert_allclose(back.T_world_camera[:3, 3], view.T_world_camera[:3, 3], atol=0.01)
    assert np.nanmedian(np.abs(result.views[0].depth_m - views[0].depth_m)) < 1e-3


def test_views_that_show_nothing_in_common_say_why(sfm, views, analytic_view):
    blank = analytic_view(views[0].T_world_camera, **SCENE, textured=False, name="blank")
    with pytest.raises(InputError, match=r"too little texture.*pairs of views match"):
        match_views(sfm, [photo(blank), photo(replace(blank, name="blank 2"))])
    with pytest.raises(InputError, match="at least 2 views"):
        match_views(sfm, [photo(views[0])])


def test_without_the_package_the_error_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gena3d\[sfm\]'"):
        make_stereo_matcher("sfm")
