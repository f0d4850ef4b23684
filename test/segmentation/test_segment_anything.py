"""The package segment-anything itself, tiny and with random weights: conventions, batches, files."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gena3d_core.benchmarks.tiny_networks import SAM_SIDE as SIDE
from gena3d_core.benchmarks.tiny_networks import tiny_sam as make_sam
from gena3d_core.errors import DataFormatError, InputError, MissingDependencyError
from gena3d_core.segmentation import make_segmenter, segment_anything_import
from gena3d_core.segmentation.mask_models import PixelPrompts
from gena3d_core.segmentation.promptable import Promptable
from gena3d_core.segmentation.segment_anything_import import import_segment_anything
from gena3d_core.segmentation.segment_anything_model import SegmentAnything, build_sam, load_segment_anything
from gena3d_core.types import BoxPrompt

installed = importlib.util.find_spec("segment_anything") is not None
needs_package = pytest.mark.skipif(not installed, reason="segment-anything is not installed")


@pytest.fixture(scope="module")
def tiny_sam():
    return make_sam()


@pytest.fixture
def images(rng):
    return [rng.integers(0, 255, size, dtype=np.uint8) for size in ((SIDE, SIDE, 3), (60, 80, 3), (90, 45, 3))]


PROMPTS = PixelPrompts(
    np.array([[10, 12, 40, 44], [5, 5, 20, 30]], np.float32),
    np.array([[[20, 20], [3, 3]], [[9, 9], [0, 0]]], np.float32),
    np.array([[1, 0], [1, -1]], np.int32),
)


@needs_package
def test_answers_are_those_of_the_package(tiny_sam, images):
    """At the network's own size nothing is resized, so the masks must be the package's to the pixel."""
    model = SegmentAnything(tiny_sam)
    found = model.candidates(model.encode(images[:1])[0], PROMPTS)
    record = {
        "image": torch.from_numpy(images[0]).permute(2, 0, 1).float(),
        "original_size": (SIDE, SIDE),
        "point_coords": torch.from_numpy(PROMPTS.points_xy),
        "point_labels": torch.from_numpy(PROMPTS.labels),
        "boxes": torch.from_numpy(PROMPTS.boxes_xyxy),
    }
    (expected,) = tiny_sam([record], multimask_output=True)
    np.testing.assert_allclose(found.scores, expected["iou_predictions"].numpy(), atol=1e-5)
    assert (found.masks != expected["masks"].numpy()).mean() < 1e-4
    assert found.masks.shape == (2, 3, SIDE, SIDE)


@needs_package
def test_prompts_follow_the_stretch_of_the_image(tiny_sam, images):
    """An image twice as large with prompts twice as far asks the same question."""
    model = SegmentAnything(tiny_sam)
    small = images[1][:, :, :]
    large = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)
    doubled = PixelPrompts(PROMPTS.boxes_xyxy * 2, PROMPTS.points_xy * 2, PROMPTS.labels)
    # SIDE / 160 shrinks and SIDE / 80 stretches: the same picture up to the filter of the resize.
    scores = [
        model.candidates(model.encode([image])[0], prompts).scores
        for image, prompts in ((small, PROMPTS), (large, doubled), (large, PROMPTS))
    ]
    assert np.abs(scores[0] - scores[1]).max() < 0.3 * np.abs(scores[0] - scores[2]).max()


@needs_package
def test_batches_of_images_of_any_size_are_the_single_answers(tiny_sam, images):
    together = SegmentAnything(tiny_sam, images_per_pass=3)
    alone = SegmentAnything(tiny_sam, images_per_pass=1)
    for one, other, image in zip(together.encode(images), alone.encode(images), images, strict=True):
        a, b = together.candidates(one, PROMPTS), alone.candidates(other, PROMPTS)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
        assert a.masks.shape[2:] == image.shape[:2]
        assert (a.masks != b.masks).mean() < 1e-3
        assert ((a.stability >= 0) & (a.stability <= 1)).all()


@needs_package
def test_features_cover_the_image_without_the_padding(tiny_sam, images):
    model = SegmentAnything(tiny_sam)
    shapes = [tuple(model.features(e).shape) for e in model.encode(images)]
    assert shapes == [(32, 8, 8), (32, 6, 8), (32, 8, 4)]


@needs_package
def test_sizes_are_read_off_the_weights(tiny_sam):
    again = build_sam(tiny_sam.state_dict(), "memory")
    assert [b.window_size for b in again.image_encoder.blocks] == [3, 0, 3]
    assert again.image_encoder.img_size == SIDE
    assert again.state_dict().keys() == tiny_sam.state_dict().keys()


@needs_package
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_weights(tiny_sam, tmp_path, images, suffix):
    file = tmp_path / f"tiny{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    save({k: v.contiguous() for k, v in tiny_sam.state_dict().items()}, file)
    model = load_segment_anything(file)
    found = model.candidates(model.encode(images[:1])[0], PROMPTS)
    own = SegmentAnything(tiny_sam)
    np.testing.assert_allclose(found.scores, own.candidates(own.encode(images[:1])[0], PROMPTS).scores, atol=1e-5)
    assert isinstance(make_segmenter("sam", checkpoint=str(file)), Promptable)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataFormatError, match="tiny"):
        make_segmenter("sam", checkpoint=str(file))


@needs_package
def test_weights_of_something_else(tiny_sam, tmp_path):
    file = tmp_path / "sam_vit_b.pth"
    torch.save({"conv.weight": torch.zeros(3, 3)}, file)
    with pytest.raises(DataFormatError, match=r"sam_vit_b\.pth: not the weights of a SAM"):
        load_segment_anything(file)
    lacking = {k: v for k, v in tiny_sam.state_dict().items() if "iou_token" not in k}
    torch.save(lacking, file)
    with pytest.raises(DataFormatError, match="iou_token"):
        load_segment_anything(file)


@needs_package
def test_absent_weights_say_where_they_belong_and_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataFormatError, match=r"sam_vit_b_01ec64\.pth.*curl") as caught:
        make_segmenter("sam")
    assert str(tmp_path) in str(caught.value)


@needs_package
def test_a_published_name_with_other_content_is_refused(tiny_sam, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".cache" / "gena3d" / "checkpoints" / "sam-vit-b"
    folder.mkdir(parents=True)
    torch.save(tiny_sam.state_dict(), folder / "sam_vit_b_01ec64.pth")
    with pytest.raises(DataFormatError, match=r"sam_vit_b_01ec64\.pth: .* instead of"):
        make_segmenter("sam")


def test_an_absent_package_gives_the_pip_line(monkeypatch):
    monkeypatch.setattr(segment_anything_import.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "segment_anything", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gena3d\[sam\]'"):
        make_segmenter("sam")


@needs_package
def test_torchvision_is_not_left_behind():
    import_segment_anything()
    module = sys.modules.get("torchvision")
    assert module is None or getattr(module, "__file__", None)


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="colour"):
        make_segmenter("sam", colour=3)
    with pytest.raises(InputError, match="proposals"):
        make_segmenter("sam", proposals="magic")
    with pytest.raises(InputError, match="max_share"):
        make_segmenter("sam", automatic={"max_share": 0.0})


@needs_package
def test_random_weights_through_the_whole_segmenter(tiny_sam, known_table):
    """What a network says that knows nothing is outvoted by depth: the objects are those of the depth clusters."""
    views, _ = known_table
    clusters = make_segmenter("tabletop")(views)
    found = Promptable(SegmentAnything(tiny_sam))(views)
    assert [o.id for o in found.objects] == [o.id for o in clusters.objects]
    for item, cluster in zip(found.objects, clusters.objects, strict=True):
        one, other = np.stack(item.visible_masks), np.stack(cluster.visible_masks)
        assert (one & other).sum() > 0.8 * other.sum()
    name = views[0].name
    prompted = Promptable(SegmentAnything(tiny_sam))(views, [BoxPrompt(name, (200.0, 150.0, 300.0, 260.0), "box")])
    assert len(prompted.objects) + len(prompted.warnings) >= 1
    assert all(
        m.shape == v.color.shape[:2] for o in prompted.objects for m, v in zip(o.visible_masks, views, strict=True)
    )
