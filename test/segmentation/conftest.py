"""A table whose instance masks are known, and a mask network that knows them."""

import numpy as np
import pytest

from gena3d_core.segmentation.mask_models import Candidates
from gena3d_core.simulation import Renderer, default_scene, views_from_scene


@pytest.fixture(scope="session")
def known_table():
    """Three views without noise, and (V, H, W) the instance of each pixel: 0 nothing, i + 1 object i."""
    spec = default_scene()
    renderer = Renderer(spec, shadow_samples=0)
    poses = spec.camera_path.poses(8)[:3]
    views = views_from_scene(spec, poses, noise=False, seed=3, renderer=renderer)
    truth = np.stack([np.maximum(renderer.render(T).instance_ids, 0) for T in poses])
    return views, truth


class KnowingModel:
    """A `MaskModel` that looks answers up in instance images (H, W), among two wrong ones.

    Its embedding of an image is the number of the view; features are the one-hot instances.
    """

    def __init__(self, views, truth):
        self.keys = {view.color.tobytes(): number for number, view in enumerate(views)}
        self.truth = truth
        self.asked = []

    def encode(self, images):
        return [self.keys[image.tobytes()] for image in images]

    def candidates(self, embedding, prompts):
        labels = self.truth[embedding]
        self.asked.append((embedding, prompts))
        masks = np.zeros((len(prompts), 3, *labels.shape), dtype=bool)
        scores = np.tile(np.array([0.4, 0.95, 0.5], np.float32), (len(prompts), 1))
        for row in range(len(prompts)):
            meant = self._meant(labels, prompts, row)
            masks[row, 1] = (labels == meant) & (meant > 0)
            masks[row, 0, : labels.shape[0] // 2] = masks[row, 1, : labels.shape[0] // 2]
            masks[row, 2] = True
        return Candidates(masks, scores, np.ones_like(scores))

    def _meant(self, labels, prompts, row):
        if prompts.points_xy is not None:
            on = prompts.labels[row] == 1
            cols, rows = np.round(prompts.points_xy[row][on]).astype(int).T
            return np.bincount(labels[rows, cols]).argmax()
        x0, y0, x1, y1 = np.round(prompts.boxes_xyxy[row]).astype(int)
        counts = np.bincount(labels[y0 : y1 + 1, x0 : x1 + 1].ravel(), minlength=2)
        counts[0] = 0
        return counts.argmax()

    def features(self, embedding):
        import torch

        labels = torch.from_numpy(self.truth[embedding]).long()
        return torch.nn.functional.one_hot(labels, int(self.truth.max()) + 1).permute(2, 0, 1)[:, ::8, ::8].float()


@pytest.fixture
def knowing_model(known_table):
    return KnowingModel(*known_table)
