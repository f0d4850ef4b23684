"""Masks of single views joined to objects, with and without geometry."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.segmentation import association, automatic
from gena3d_core.segmentation.mask_models import PixelPrompts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 10_000))
def test_joining_makes_a_partition_with_at_most_one_mask_a_view(counts, seed):
    rng = np.random.default_rng(seed)
    similarity = {
        (i, j): rng.uniform(0, 1, (counts[i], counts[j])).astype(np.float32)
        for i, j in combinations(range(len(counts)), 2)
    }
    objects = association.join(counts, similarity, 0.3)
    keys = [key for entry in objects for key in entry.items()]
    assert sorted(keys) == [(view, index) for view, count in enumerate(counts) for index in range(count)]
    # Nothing stays apart that could have been joined: no similar pair of single masks is left.
    singles = [next(iter(entry.items())) for entry in objects if len(entry) == 1]
    for (i, a), (j, b) in combinations(sorted(singles), 2):
        assert i == j or similarity[i, j][a, b] < 0.3


def test_the_most_similar_pair_wins():
    similarity = {(0, 1): np.array([[0.5, 0.9], [0.8, 0.85]], np.float32)}
    assert association.join([2, 2], similarity, 0.3) == [{0: 0, 1: 1}, {0: 1, 1: 0}]
    assert association.join([2, 2], similarity, 0.95) == [{0: 0}, {0: 1}, {1: 0}, {1: 1}]


def shuffled_masks(truth, rng):
    """For each view its objects in a random order: masks, and the object of each."""
    masks, owners = [], []
    for labels in truth:
        seen = [k for k in np.unique(labels) if k > 0 and (labels == k).sum() > 100]
        order = rng.permutation(seen)
        masks.append([labels == k for k in order])
        owners.append(order)
    return masks, owners


def test_geometry_gives_every_object_of_the_table_one_id(known_table, rng):
    views, truth = known_table
    masks, owners = shuffled_masks(truth, rng)
    similarity = association.geometric_similarity(views, masks)
    objects = association.join([len(m) for m in masks], similarity, 0.3)
    names = [{int(owners[view][index]) for view, index in entry.items()} for entry in objects]
    assert all(len(entry) == 1 for entry in names)  # no id switches
    assert len(names) == len(set.union(*names))  # no object in two pieces


def test_looks_give_the_same_ids_where_objects_look_different(known_table, knowing_model, rng):
    _, truth = known_table
    masks, owners = shuffled_masks(truth, rng)
    descriptors = [association.mask_descriptors(knowing_model.features(v), masks[v]) for v in range(len(truth))]
    objects = association.join([len(m) for m in masks], association.appearance_similarity(descriptors), 0.7)
    for entry in objects:
        assert len({int(owners[view][index]) for view, index in entry.items()}) == 1
    assert len(objects) == len({int(k) for order in owners for k in order})


def test_descriptors_are_unit_means_without_what_all_have_in_common():
    features = torch.full((3, 4, 4), 7.0)
    features[0, :2] += 1.0
    features[1, 2:] += 1.0
    top = np.zeros((16, 16), bool)
    top[:8] = True
    found = association.mask_descriptors(features, [top, ~top])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert found[0] @ found[1] < -0.99
    assert association.mask_descriptors(features, []).shape == (0, 3)


def test_the_grid_of_points_covers_the_image_evenly():
    grid = automatic.point_grid((60, 80), 8)
    assert len(grid) == 48
    assert grid.min(0).tolist() == [4.5, 4.5]
    assert grid.max(0).tolist() == [74.5, 54.5]


def test_of_nested_and_doubled_masks_the_wholes_stay():
    masks = np.zeros((4, 40, 40), bool)
    masks[0, :20] = True
    masks[1, :21] = True  # nearly the same
    masks[2, :8, :8] = True  # a part
    masks[3, 24:, 24:] = True
    kept = automatic.distinct(masks, 0.7)
    assert kept.tolist() == [0, 2, 3]
    assert kept[automatic.wholes(masks[kept], 0.8)].tolist() == [0, 3]


def test_automatic_masks_find_the_objects_of_the_table(known_table, knowing_model):
    _, truth = known_table
    masks, scores = automatic.automatic_masks(knowing_model, 0, truth[0].shape)
    assert (np.diff(scores) <= 0).all()
    found = [np.unique(truth[0][mask]) for mask in masks]
    assert all(len(labels) == 1 for labels in found)
    # One answer each for all objects that a point of the grid can hit.
    assert len({int(labels[0]) for labels in found}) == len(masks) >= 0.6 * truth.max()


def test_prompts_of_unequal_counts_are_refused():
    with pytest.raises(ValueError, match="labels"):
        PixelPrompts(points_xy=np.zeros((2, 1, 2), np.float32))
    with pytest.raises(ValueError, match="differ"):
        PixelPrompts(np.zeros((1, 4), np.float32), np.zeros((2, 1, 2), np.float32), np.ones((2, 1), int))
    with pytest.raises(ValueError, match="boxes, points or both"):
        PixelPrompts()
