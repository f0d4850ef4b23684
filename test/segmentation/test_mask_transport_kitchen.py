"""Masks from a box in one frame of the real recording, carried to frames that look from elsewhere.

The reference in each frame is the depth cluster under that frame's own annotated box, found in that frame alone.
Prints its figures (`pytest -s`).
"""

import json

import numpy as np
import pytest

from gena3d_core.io import load_recording
from gena3d_core.segmentation import make_segmenter
from gena3d_core.segmentation.mask_models import Candidates
from gena3d_core.segmentation.promptable import Promptable, PromptableConfig
from gena3d_core.segmentation.transport import agreement, evidence, look_up
from gena3d_core.stereo import make_stereo_matcher
from gena3d_core.types import BoxPrompt

MIN_IOU = 0.7


def iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


class Subset:
    """The listed frames of one set of views, and in each the depth clusters under the annotated boxes, by name."""

    def __init__(self, folder, wanted, frames, boxes):
        loaded = {int(view.name): view for view in load_recording(folder, tuple(frames), None).views}
        self.views = make_stereo_matcher("depth_camera")([loaded[frame] for frame in frames])
        self.wanted = wanted
        self.boxes = [boxes[frame] for frame in frames]
        self.clusters = [
            {item.label: item.visible_masks[0] for item in self.segmenter([view], prompts).objects}
            for view, prompts in (
                (view, [BoxPrompt(view.name, box, name) for name, box in named.items()])
                for view, named in zip(self.views, self.boxes, strict=True)
            )
        ]

    segmenter = make_segmenter("tabletop")

    @property
    def prompt(self):
        """The box of the wanted object in the first frame."""
        return BoxPrompt(self.views[0].name, self.boxes[0][self.wanted], self.wanted)

    def others(self):
        """Numbers of the other frames, in which the object's own cluster could be found."""
        return [number for number in range(1, len(self.views)) if self.wanted in self.clusters[number]]

    def check(self, masks, how):
        """IoU with the object's own cluster in every other frame; no other object's cluster may agree better."""
        for number in self.others():
            own = {name: iou(masks[number], mask) for name, mask in self.clusters[number].items()}
            switched = max(own, key=own.get) != self.wanted
            frames = f"{self.views[0].name} -> {self.views[number].name}"
            print(f"{how}: {self.wanted} {frames}: IoU {own[self.wanted]:.3f}, id switches {int(switched)}")
            assert max(own, key=own.get) == self.wanted, f"id switch in {self.views[number].name}: {own}"
            assert own[self.wanted] >= MIN_IOU, f"{self.views[number].name}: {own}"


OBJECTS = ("mug_white", "mug_patterned", "plastic_box", "controller")


@pytest.fixture(scope="module", params=[(name, number) for number in (0, 1) for name in OBJECTS])
def subset(request, kitchen_dir):
    name, number = request.param
    content = json.loads((kitchen_dir / "annotations.json").read_text())
    boxes = {
        entry["frame"]: {item["name"]: tuple(item["box_xyxy"]) for item in entry["objects"]}
        for entry in content["annotations"]
    }
    listed = [s for s in content["sparse_views"] if (s["object"], s["views"], s["set"]) == (name, 4, number)]
    found = Subset(kitchen_dir, name, listed[0]["frames"], boxes)
    assert found.wanted in found.clusters[0]
    assert found.others()
    return found


@pytest.mark.slow
def test_depth_clusters_carry_a_box_to_the_other_frames(subset):
    result = subset.segmenter(subset.views, [subset.prompt])
    assert [item.label for item in result.objects] == [subset.wanted]
    subset.check(result.objects[0].visible_masks, "clusters")


class ClustersOnRequest:
    """A `MaskModel` whose answer to a box is the depth cluster in it, and to points the cluster under them."""

    def __init__(self, views):
        self.views = views

    def encode(self, images):
        return list(range(len(images)))

    def candidates(self, embedding, prompts):
        view = self.views[embedding]
        masks = np.zeros((len(prompts), 1, *view.color.shape[:2]), bool)
        if prompts.boxes_xyxy is not None:
            boxes = [BoxPrompt(view.name, tuple(map(float, box))) for box in prompts.boxes_xyxy]
            for item in Subset.segmenter([view], boxes).objects:
                masks[item.id - 1, 0] = item.visible_masks[0]
        return Candidates(masks, np.ones((len(prompts), 1), np.float32), np.ones((len(prompts), 1), np.float32))


@pytest.mark.slow
def test_prompts_made_by_transport_bring_the_masks_of_the_same_object(subset):
    """The boxes that transport makes for a mask network, answered by depth clusters, hold the object itself."""
    segmenter = Promptable(ClustersOnRequest(subset.views), PromptableConfig(refine=False))
    embeddings = segmenter.model.encode([view.color for view in subset.views])
    known = [[subset.clusters[0][subset.wanted], *[None] * (len(subset.views) - 1)]]
    masks, _ = segmenter.carried(subset.views, embeddings, known)
    subset.check(masks[0], "transport")


@pytest.mark.slow
def test_carried_pixels_choose_the_right_cluster_among_all(subset):
    source = subset.clusters[0][subset.wanted]
    for number in subset.others():
        found = evidence([look_up(subset.views[number], subset.views[0])], [source])
        names = list(subset.clusters[number])
        scores = agreement(np.stack([subset.clusters[number][name] for name in names]), found)
        assert names[int(scores.argmax())] == subset.wanted
        assert scores.max() >= MIN_IOU
