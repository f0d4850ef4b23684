"""SAM 2, SAM 3 and Florence-2 of transformers, tiny and with random weights: conventions, batches, folders."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from gena3d_core.benchmarks.tiny_networks import DECODER, tiny_florence2, tiny_sam2
from gena3d_core.errors import DataFormatError, InputError, MissingDependencyError
from gena3d_core.segmentation import florence2, make_segmenter, transformers_import
from gena3d_core.segmentation.florence2 import Florence2, load_florence2, parse_boxes
from gena3d_core.segmentation.grounded import Grounded
from gena3d_core.segmentation.mask_models import PixelPrompts
from gena3d_core.segmentation.promptable import Promptable
from gena3d_core.segmentation.transformers_mask_model import (
    FAMILIES,
    TransformersMaskModel,
    load_transformers_mask_model,
)

installed = importlib.util.find_spec("transformers") is not None
needs_package = pytest.mark.skipif(not installed, reason="transformers is not installed")
PROMPTS = PixelPrompts(
    np.array([[10, 12, 40, 44], [5, 5, 20, 30]], np.float32),
    np.array([[[20, 20], [3, 3]], [[9, 9], [0, 0]]], np.float32),
    np.array([[1, 0], [1, -1]], np.int32),
)


def tiny_sam3():
    from transformers import Sam3TrackerConfig, Sam3TrackerModel, Sam3VisionConfig, Sam3ViTConfig
    from transformers.models.sam3_tracker.configuration_sam3_tracker import (
        Sam3TrackerMaskDecoderConfig,
        Sam3TrackerPromptEncoderConfig,
    )

    backbone = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=28,
    )
    vision = Sam3VisionConfig(
        backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]
    )
    prompts = Sam3TrackerPromptEncoderConfig(hidden_size=32, image_size=56, patch_size=14)
    return Sam3TrackerModel(
        Sam3TrackerConfig(
            vision_config=vision,
            prompt_encoder_config=prompts,
            mask_decoder_config=Sam3TrackerMaskDecoderConfig(**DECODER),
        )
    )


MAKERS = {"sam2": tiny_sam2, "sam3": tiny_sam3}
SIDES = {"sam2": 64, "sam3": 56}


@pytest.fixture(scope="module", params=["sam2", "sam3"])
def network(request):
    if not installed:
        pytest.skip("transformers is not installed")
    torch.manual_seed(0)
    model = MAKERS[request.param]().eval()
    # Fresh networks answer 0.5 to everything: larger weights make the answers depend on the question.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(4.0)
    return request.param, model


@pytest.fixture
def images(rng):
    return [rng.integers(0, 255, size, dtype=np.uint8) for size in ((64, 64, 3), (60, 80, 3), (90, 45, 3))]


def test_answers_are_those_of_the_network(network, rng):
    """At the network's own size nothing is resized: scores and masks must be the library's."""
    name, model = network
    side, family = SIDES[name], FAMILIES[name]
    image = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
    adapter = TransformersMaskModel(model, family)
    found = adapter.candidates(adapter.encode([image])[0], PROMPTS)
    pixels = (
        torch.from_numpy(image).permute(2, 0, 1) / 255.0 - torch.tensor(family.mean)[:, None, None]
    ) / torch.tensor(family.deviation)[:, None, None]
    with torch.inference_mode():
        answer = model(
            pixel_values=pixels[None],
            input_boxes=torch.from_numpy(PROMPTS.boxes_xyxy)[None],
            input_points=torch.from_numpy(PROMPTS.points_xy)[None],
            input_labels=torch.from_numpy(PROMPTS.labels)[None],
        )
    np.testing.assert_allclose(found.scores, answer.iou_scores[0].numpy(), atol=1e-4)
    low = torch.nn.functional.interpolate(answer.pred_masks[0], (side, side), mode="bilinear", align_corners=False)
    assert (found.masks != (low > 0).numpy()).mean() < 1e-3
    assert found.masks.shape == (2, 3, side, side)


def test_batches_of_images_of_any_size_are_the_single_answers(network, images):
    name, model = network
    together = TransformersMaskModel(model, FAMILIES[name], images_per_pass=3)
    alone = TransformersMaskModel(model, FAMILIES[name], images_per_pass=1)
    for one, other, image in zip(together.encode(images), alone.encode(images), images, strict=True):
        a, b = together.candidates(one, PROMPTS), alone.candidates(other, PROMPTS)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-3)
        assert a.masks.shape[2:] == image.shape[:2]
        assert together.features(one).shape == (32, 4, 4)


def test_prompts_matter_and_may_come_without_boxes_or_points(network, images):
    name, model = network
    adapter = TransformersMaskModel(model, FAMILIES[name])
    embedding = adapter.encode(images[1:2])[0]
    answers = [
        adapter.candidates(embedding, PROMPTS),
        adapter.candidates(embedding, PixelPrompts(PROMPTS.boxes_xyxy)),
        adapter.candidates(embedding, PixelPrompts(points_xy=PROMPTS.points_xy, labels=PROMPTS.labels)),
    ]
    assert all(answer.masks.shape == (2, 3, 60, 80) for answer in answers)
    assert np.abs(answers[0].scores - answers[1].scores).max() > 1e-5
    assert np.abs(answers[1].scores - answers[2].scores).max() > 1e-5


def test_folders_of_weights(network, tmp_path, images):
    name, model = network
    model.save_pretrained(tmp_path)
    again = load_transformers_mask_model(name, tmp_path)
    own = TransformersMaskModel(model, FAMILIES[name])
    np.testing.assert_allclose(
        again.candidates(again.encode(images[:1])[0], PROMPTS).scores,
        own.candidates(own.encode(images[:1])[0], PROMPTS).scores,
        atol=1e-4,
    )
    assert isinstance(make_segmenter(name, checkpoint=str(tmp_path)), Promptable)
    other = "sam3" if name == "sam2" else "sam2"
    with pytest.raises(DataFormatError, match=f"model of type '{model.config.model_type}'"):
        make_segmenter(other, checkpoint=str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:4000])
    with pytest.raises(DataFormatError, match="cannot be loaded"):
        make_segmenter(name, checkpoint=str(tmp_path))
    weights.unlink()
    with pytest.raises(DataFormatError, match="cannot be loaded"):
        make_segmenter(name, checkpoint=str(tmp_path))


@needs_package
@pytest.mark.parametrize(("name", "repository"), [("sam2", "sam2.1-hiera"), ("sam3", "facebook/sam3")])
def test_absent_weights_say_where_they_belong_and_how_to_get_them(tmp_path, monkeypatch, name, repository):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataFormatError, match=f"snapshot_download .*{repository}"):
        make_segmenter(name)


@pytest.mark.parametrize("name", ["sam2", "sam3", "grounded"])
def test_an_absent_package_gives_the_pip_line(monkeypatch, name):
    monkeypatch.setattr(transformers_import.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gena3d\[transformers\]'"):
        make_segmenter(name)


# Florence-2


@pytest.fixture(scope="module")
def tiny_florence():
    if not installed:
        pytest.skip("transformers is not installed")
    return tiny_florence2()


def test_boxes_are_read_in_pixels_of_the_image():
    answer = "</s><s>red mug<loc_0><loc_0><loc_499><loc_999><loc_100><loc_200><loc_300><loc_400>bowl<loc_9>"
    found = parse_boxes(answer, 200, 100)
    assert [item.label for item in found] == ["red mug", "red mug"]
    np.testing.assert_allclose(found[0].box_xyxy, (0.1, 0.05, 99.9, 99.95))
    np.testing.assert_allclose(found[1].box_xyxy, (20.1, 20.05, 60.1, 40.05))
    assert [item.label for item in parse_boxes(answer, 200, 100, "asked for")] == ["asked for"] * 2
    assert parse_boxes(answer.replace("<loc", " <loc"), 200, 100) == found
    outline = "mug<poly><loc_10><loc_10><loc_90><loc_20><loc_50><loc_80></poly>"
    (item,) = parse_boxes(outline, 1000, 1000)
    np.testing.assert_allclose(item.box_xyxy, (10.5, 10.5, 90.5, 80.5))
    assert parse_boxes("<s>nothing here</s>", 10, 10) == []
    assert parse_boxes("mug<loc_5><loc_5><loc_5><loc_9>", 10, 10) == []


def test_questions_become_rows_of_image_places_and_words(tiny_florence):
    network, tokenizer = tiny_florence
    ids, attended = Florence2(network, tokenizer)._token_rows(["Locate mug in the image.", "mug"], 3)
    words = tokenizer.convert_tokens_to_ids(["Locate", "mug", "in", "the", "image", "."])
    assert ids[0].tolist() == [4, 4, 4, 0, *words, 2]
    assert ids[1].tolist() == [4, 4, 4, 0, words[1], 2] + [1] * 5
    assert attended.sum(1).tolist() == [11, 6]


def test_detection_end_to_end_gives_the_boxes_that_the_network_writes(tiny_florence, images):
    """All of the library runs; only the last layer is bent towards a known sentence, one word at each step."""
    network, tokenizer = tiny_florence
    sentence = ["mug", "<loc_250>", "<loc_100>", "<loc_750>", "<loc_900>", "</s>"]
    wanted = tokenizer.convert_tokens_to_ids(sentence)
    steps = []

    def write(module, inputs, logits):
        bent = logits.clone()
        bent[..., wanted[len(steps) % len(wanted)]] += 1000.0
        steps.append(tuple(logits.shape))
        return bent

    detector = Florence2(network, tokenizer, image_size=64, max_new_tokens=20, beams=1, rows_per_pass=4)
    hook = network.lm_head.register_forward_hook(write)
    try:
        found = detector.detect(images, ["a mug", "bowl"])
        listed = detector.detect(images[:1], [])
    finally:
        hook.remove()
    # Six pairs of image and text in passes of four and two, then one question without text.
    assert [shape[0] for shape in steps] == [4] * 6 + [2] * 6 + [1] * 6
    for entries, image in zip(found, images, strict=True):
        height, width = image.shape[:2]
        assert [entry.label for entry in entries] == ["a mug", "bowl"]
        for entry in entries:
            np.testing.assert_allclose(
                entry.box_xyxy, (0.2505 * width, 0.1005 * height, 0.7505 * width, 0.9005 * height), rtol=1e-6
            )
    assert [entry.label for entry in listed[0]] == ["mug"]


def test_folders_of_florence2(tiny_florence, tmp_path, images):
    network, tokenizer = tiny_florence
    network.save_pretrained(tmp_path)
    with pytest.raises(DataFormatError, match="tokenizer"):
        load_florence2(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 64, "width": 64}}))
    detector = load_florence2(tmp_path)
    assert detector.image_size == 64
    detector.max_new_tokens = 4
    assert len(detector.detect(images[:1], ["mug"])) == 1
    (tmp_path / "masks").mkdir()
    tiny_sam2().save_pretrained(tmp_path / "masks")
    segmenter = make_segmenter(
        "grounded", checkpoint=str(tmp_path), masks="sam2", mask_checkpoint=str(tmp_path / "masks")
    )
    assert isinstance(segmenter, Grounded)
    with pytest.raises(DataFormatError, match="model of type 'florence2'"):
        make_segmenter("sam2", checkpoint=str(tmp_path))
    with pytest.raises(InputError, match="masks must be"):
        make_segmenter("grounded", masks="magic")


def test_the_questions_are_those_that_florence2_was_taught():
    assert florence2.LOCATE.format(text="a mug") == "Locate a mug in the image."
