"""Farthest points, MMD and COV against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.metrics.point_sets import farthest_points, set_scores, thinned


def plain_farthest(points, count):
    chosen, distance = [0], np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return chosen


def squared_chamfer(one, other):
    squares = ((one[:, None] - other[None]) ** 2).sum(axis=2)
    return squares.min(axis=1).mean() + squares.min(axis=0).mean()


def test_farthest_points_of_a_batch(rng):
    points = rng.normal(size=(3, 200, 3))
    found = farthest_points(torch.from_numpy(points), 40)
    for own, expected in zip(found.numpy(), points, strict=True):
        assert own.tolist() == plain_farthest(expected, 40)


def test_farthest_points_of_all_points_are_all_of_them(rng):
    points = torch.from_numpy(rng.normal(size=(1, 30, 3)))
    assert sorted(farthest_points(points, 30)[0].tolist()) == list(range(30))
    with pytest.raises(InputError, match="farthest"):
        farthest_points(points, 31)


def test_thinned_spreads_better_than_chance(rng):
    points = rng.normal(size=(2000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    kept = thinned(points, 100)
    gaps = np.linalg.norm(kept[:, None] - kept[None], axis=2) + 9 * np.eye(100)
    chance = np.linalg.norm(points[:100, None] - points[None, :100], axis=2) + 9 * np.eye(100)
    assert gaps.min() > 4 * chance.min()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.01, 0.3, 3.0]))
def test_set_scores_are_those_of_all_pairs(seed, ours, theirs, spread):
    rng = np.random.default_rng(seed)

    def shapes(count):
        return [rng.normal(size=(rng.integers(1, 60), 3)) * 0.3 + rng.normal(size=3) * spread for _ in range(count)]

    generated, references = shapes(ours), shapes(theirs)
    distance = np.array([[squared_chamfer(a, b) for b in references] for a in generated])
    scores = set_scores(generated, references)
    assert scores.mmd == pytest.approx(distance.min(axis=0).mean(), rel=1e-9)
    assert scores.cov == len(set(distance.argmin(axis=1))) / theirs


def test_equal_sets_match_and_one_shape_covers_one(rng):
    shapes = [rng.normal(size=(50, 3)) + 3 * i for i in range(4)]
    assert set_scores(shapes, shapes).mmd == 0.0
    assert set_scores(shapes, shapes).cov == 1.0
    assert set_scores(shapes[:1] * 4, shapes).cov == 0.25


def test_no_results_cover_nothing(rng):
    scores = set_scores([], [rng.normal(size=(5, 3))])
    assert np.isnan(scores.mmd)
    assert scores.cov == 0.0
    with pytest.raises(InputError, match="reference"):
        set_scores([np.zeros((1, 3))], [])
