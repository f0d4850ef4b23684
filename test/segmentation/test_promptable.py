"""The segmenter on mask networks, driven by a network that knows the answers and by one that knows nothing."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.segmentation import make_segmenter, prompt_kinds
from gena3d_core.segmentation.florence2 import Detection
from gena3d_core.segmentation.grounded import Grounded
from gena3d_core.segmentation.mask_models import Candidates
from gena3d_core.segmentation.promptable import Promptable, PromptableConfig
from gena3d_core.segmentation.transport import box_of
from gena3d_core.types import BoxPrompt, PointPrompt, TextPrompt


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def visible_everywhere(truth, least=300):
    counts = np.stack([np.bincount(labels.ravel(), minlength=truth.max() + 1) for labels in truth])
    return [int(k) for k in np.flatnonzero((counts >= least).all(0)) if k > 0]


class IgnorantModel:
    """Answers every prompt with the upper left corner, sure of itself."""

    def encode(self, images):
        return [image.shape[:2] for image in images]

    def candidates(self, embedding, prompts):
        masks = np.zeros((len(prompts), 3, *embedding), bool)
        masks[:, :, :20, :20] = True
        scores = np.full((len(prompts), 3), 0.99, np.float32)
        return Candidates(masks, scores, scores)


def test_a_box_in_one_view_finds_the_object_in_all(known_table, knowing_model):
    views, truth = known_table
    wanted = visible_everywhere(truth)[:3]
    prompts = [BoxPrompt(views[0].name, tuple(map(float, box_of(truth[0] == k))), f"thing {k}") for k in wanted]
    found = Promptable(knowing_model)(views, prompts)
    assert [o.label for o in found.objects] == [p.label for p in prompts]
    assert [o.id for o in found.objects] == [1, 2, 3]
    for item, k in zip(found.objects, wanted, strict=True):
        for mask, labels in zip(item.visible_masks, truth, strict=True):
            assert iou(mask, labels == k) > 0.9
    assert found.support is not None
    # One batch for the prompted view, then both kinds of prompts for all objects of each other view at once.
    assert [len(prompts) for _, prompts in knowing_model.asked] == [3] * 5


def test_clicks_in_different_views_are_different_objects(known_table, knowing_model):
    views, truth = known_table
    first, second = visible_everywhere(truth)[:2]
    rows, cols = np.nonzero(truth[0] == first)
    middle = len(rows) // 2
    click = (float(cols[middle]), float(rows[middle]))
    rows, cols = np.nonzero(truth[2] == second)
    other = (float(cols[len(rows) // 2]), float(rows[len(rows) // 2]))
    off = (1.0, 1.0)
    prompts = [PointPrompt(views[0].name, (click, off), (True, False)), PointPrompt(views[2].name, (other,))]
    found = Promptable(knowing_model)(views, prompts)
    for item, k in zip(found.objects, (first, second), strict=True):
        assert min(iou(mask, labels == k) for mask, labels in zip(item.visible_masks, truth, strict=True)) > 0.9
    labels = next(p.labels for _, p in knowing_model.asked)
    assert labels.tolist() == [[1, 0]]


def test_where_the_network_disagrees_with_the_geometry_geometry_wins_and_says_so(known_table):
    views, truth = known_table
    k = visible_everywhere(truth)[0]
    model = IgnorantModel()
    segmenter = Promptable(model, PromptableConfig(refine=False))
    known = [[truth[0] == k, None, None]]
    masks, warnings = segmenter.carried(views, model.encode([v.color for v in views]), known)
    assert all(np.mean((truth[v] == k)[masks[0][v]]) > 0.95 for v in (1, 2))
    assert len(warnings) == 2
    assert all("agrees with the geometry" in warning for warning in warnings)


def test_without_prompts_the_depth_clusters_are_refined(known_table, knowing_model):
    views, truth = known_table
    clusters = make_segmenter("tabletop")(views)
    found = Promptable(knowing_model)(views)
    assert len(found.objects) == len(clusters.objects)
    for item, cluster in zip(found.objects, clusters.objects, strict=True):
        assert item.id == cluster.id
        k = np.bincount(truth[0][cluster.visible_masks[0]]).argmax()
        assert iou(item.visible_masks[0], truth[0] == k) > 0.9
    ignorant = Promptable(IgnorantModel(), PromptableConfig(refine=False))(views)
    for item, cluster in zip(ignorant.objects, clusters.objects, strict=True):
        np.testing.assert_array_equal(np.stack(item.visible_masks), np.stack(cluster.visible_masks))
    assert any("the cluster is used" in warning for warning in ignorant.warnings)


def test_automatic_masks_become_objects_with_one_id_each(known_table, knowing_model):
    views, truth = known_table
    found = Promptable(knowing_model, PromptableConfig(proposals="automatic", min_views=2))(views)
    owners = []
    for item in found.objects:
        inside = np.concatenate([labels[m] for labels, m in zip(truth, item.visible_masks, strict=True)])
        owners.append(int(np.bincount(inside).argmax()))
        assert (inside == owners[-1]).mean() > 0.95
    assert len(set(owners)) == len(owners) >= 3


def test_a_scene_without_a_table_is_left_to_the_network(known_table, knowing_model):
    views, _ = known_table
    # Seen from a camera that lies on its side, nothing is level.
    tilt = transforms.rigid(transforms.Rotation.from_euler("x", 60.0, degrees=True).as_matrix())
    tilted = [replace(view, T_world_camera=tilt @ view.T_world_camera) for view in views]
    found = Promptable(knowing_model)(tilted)
    assert len(found.objects) >= 3
    assert "automatic masks are used" in found.warnings[0]


def test_without_depth_prompted_objects_are_matched_by_their_looks(known_table, knowing_model):
    views, truth = known_table
    blind = [replace(view, depth_m=None, depth_confidence=None) for view in views]
    k = max(visible_everywhere(truth), key=lambda k: (truth == k).sum())
    found = Promptable(knowing_model)(blind, [BoxPrompt(views[0].name, tuple(map(float, box_of(truth[0] == k))))])
    assert found.support is None
    assert any("without depth" in warning for warning in found.warnings)
    for mask, labels in zip(found.objects[0].visible_masks, truth, strict=True):
        assert iou(mask, labels == k) > 0.9


class BoxesByWord:
    """A detector that knows the boxes of some objects, and misses them in the last view."""

    def __init__(self, truth, names):
        self.truth, self.names = truth, names

    def detect(self, images, texts):
        wanted = list(texts) or list(self.names)
        return [
            [
                Detection(tuple(map(float, box_of(labels == self.names[text]))), text)
                for text in wanted
                if text in self.names and number < len(images) - 1
            ]
            for number, labels in enumerate(self.truth)
        ]


def test_words_find_objects_also_where_the_detector_missed_them(known_table, knowing_model):
    views, truth = known_table
    first, second = visible_everywhere(truth)[:2]
    detector = BoxesByWord(truth, {"mug": first, "bowl": second})
    segmenter = Grounded(detector, Promptable(knowing_model))
    box = BoxPrompt(views[1].name, tuple(map(float, box_of(truth[1] == second))), "by box")
    found = segmenter(views, [TextPrompt(" mug "), box, TextPrompt("unicorn")])
    assert [o.label for o in found.objects] == ["by box", "mug"]
    for item, k in zip(found.objects, (second, first), strict=True):
        assert min(iou(mask, labels == k) for mask, labels in zip(item.visible_masks, truth, strict=True)) > 0.9
    assert any("'unicorn' was not found" in warning for warning in found.warnings)
    assert {o.label for o in segmenter(views).objects} == {"mug", "bowl"}


def test_prompts_of_the_wrong_kind_or_view_are_refused(known_table, knowing_model):
    views, _ = known_table
    segmenter = Promptable(knowing_model, name="sam")
    with pytest.raises(InputError, match="'sam' takes boxes, points, not texts"):
        segmenter(views, [TextPrompt("mug")])
    with pytest.raises(InputError, match="nowhere"):
        segmenter(views, [PointPrompt("nowhere", ((1.0, 2.0),))])
    with pytest.raises(InputError, match="does not lie in its image"):
        segmenter(views, [BoxPrompt(views[0].name, (-20.0, 5.0, -3.0, 9.0))])
    with pytest.raises(InputError, match="does not lie in its image"):
        segmenter(views, [PointPrompt(views[0].name, ((5.0, 5.0), (5.0, 9999.0)))])
    with pytest.raises(InputError, match="no views"):
        segmenter([])
    with pytest.raises(InputError, match="not texts"):
        make_segmenter("tabletop")(views, [TextPrompt("mug")])
    assert prompt_kinds(make_segmenter("tabletop")) == {BoxPrompt, PointPrompt}
    assert prompt_kinds(segmenter) == {BoxPrompt, PointPrompt}


def test_prompts_check_themselves():
    with pytest.raises(InputError, match="one point on the object"):
        PointPrompt("a", ((1.0, 2.0),), (False,))
    with pytest.raises(InputError, match="flag for each point"):
        PointPrompt("a", ((1.0, 2.0),), (True, True))
    with pytest.raises(InputError, match="finite"):
        PointPrompt("a", ((1.0, float("nan")),))
    with pytest.raises(InputError, match="empty"):
        TextPrompt("  ")
    assert PointPrompt("a", ((1, 2), (3, 4))).on_object == (True, True)
    with pytest.raises(InputError, match="proposals"):
        PromptableConfig(proposals="magic")
