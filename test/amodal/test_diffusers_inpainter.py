"""Inpainting by diffusers, random weights, from image to observation; and what is said of bad folders."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.amodal import diffusers_folder
from gena3d_core.amodal.diffusers_inpainter import DiffusersInpainter
from gena3d_core.amodal.inpainter import InpaintTask
from gena3d_core.amodal.occlusion import occlusion_masks
from gena3d_core.errors import DataFormatError, Gena3DError, InputError, MissingDependencyError
from gena3d_core.view_completion import make_view_completer

EYES = [(0.7, 0.0, 0.25)]


@pytest.fixture(scope="module")
def folder(tiny_diffusion, tmp_path_factory):
    return tiny_diffusion.save_inpainting(tmp_path_factory.mktemp("inpainting"))


@pytest.fixture(scope="module")
def inpainter(folder):
    return DiffusersInpainter(folder, steps=2)


def task(seed=0, prompt="a mug", side=64):
    rng = np.random.default_rng(1)
    region = np.zeros((side, side), bool)
    region[:, side // 2 :] = True
    picture = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return InpaintTask(picture, region, picture, ~region, (128, 128, 128), (0, 0, side, side), prompt, seed)


def difference(a, b):
    return np.abs(a.astype(int) - b).max()


def test_seeds_prompts_and_batches(inpainter):
    alone = [inpainter([task(seed)])[0] for seed in (0, 1)]
    assert inpainter.side == 64
    assert alone[0].shape == (64, 64, 3)
    assert alone[0].dtype == np.uint8
    assert alone[0].std() > 5
    np.testing.assert_array_equal(alone[0], inpainter([task(0)])[0])
    assert difference(alone[0], alone[1]) > 20
    # Sums are ordered otherwise in a batch; rounding may show.
    together = inpainter([task(1), task(0)])
    assert difference(together[0], alone[1]) <= 2
    assert difference(together[1], alone[0]) <= 2
    assert difference(inpainter([task(0, prompt="a cat")])[0], alone[0]) > 0
    assert inpainter([]) == []


def test_memory_is_given_back(inpainter):
    before = inpainter([task()])[0]
    assert inpainter._pipeline is not None
    inpainter.close()
    assert inpainter._pipeline is None
    np.testing.assert_array_equal(before, inpainter([task()])[0])


def test_from_a_scene_to_completed_views(folder, solids):
    """The whole way: who hides whom, procedure, network, outline, observation."""
    scene = [solids.Cylinder((0, 0, 0), 0.05, 0.12), solids.Box((0.15, 0.0, 0.1), (0.01, 0.012, 0.1))]
    observations = []
    for number in range(2):
        one = solids.observe(scene, EYES, number=number)
        masks = occlusion_masks(one.views, one.visible_masks, one.points_m, one.support)
        observations.append(replace(one, id=number, occlusion_masks=masks))

    def run(seed):
        completer = make_view_completer("oaac", checkpoint=str(folder), device="cpu", steps=2, max_iterations=2)
        return completer.complete(observations, seed=seed)

    cup, post = run(0)
    assert post is observations[1]
    view, completed = cup.views[0], cup.completed_masks[0]
    # Random weights paint noise, which is no background: much of the hidden part must be taken.
    assert completed.sum() > 0.3 * observations[0].occlusion_masks[0].sum()
    assert not (completed & observations[0].visible_masks[0]).any()
    np.testing.assert_array_equal(view.color[~completed], observations[0].views[0].color[~completed])
    assert (view.color[completed] != observations[0].views[0].color[completed]).any(axis=-1).mean() > 0.9
    np.testing.assert_array_equal(run(0)[0].views[0].color, view.color)
    assert (run(1)[0].views[0].color != view.color).any()


def test_flux_fill(tiny_diffusion, tmp_path):
    """The other family: its transformer takes no negative prompt, and packs mask and picture in its own way."""
    folder = tiny_diffusion.save_flux_fill(tmp_path)
    painter = make_view_completer("flux", checkpoint=str(folder), steps=2, side=64).inpainter
    assert DiffusersInpainter(folder).side == 768
    alone = [painter([task(seed)])[0] for seed in (0, 1)]
    assert alone[0].shape == (64, 64, 3)
    np.testing.assert_array_equal(alone[0], painter([task(0)])[0])
    assert difference(alone[0], alone[1]) > 20
    together = painter([task(1), task(0)])
    assert difference(together[0], alone[1]) <= 2
    assert difference(together[1], alone[0]) <= 2
    copy = damaged(folder, tmp_path, lambda f: edit(f / "transformer/config.json", in_channels=64))
    with pytest.raises(DataFormatError, match=r"its transformer takes 64 channels.*takes 384"):
        DiffusersInpainter(copy)


def damaged(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def edit(file, **entries):
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model_index.json").unlink(), r"copy: holds no model_index\.json"),
        (
            lambda f: edit(f / "model_index.json", _class_name="StableDiffusionPipeline"),
            "'StableDiffusionPipeline'.*known",
        ),
        (lambda f: edit(f / "unet/config.json", in_channels=4), "takes 4 channels.*another model"),
        (lambda f: (f / "unet/config.json").write_text("{"), r"unet/config\.json: not readable as JSON"),
        (lambda f: truncate(f / "unet" / WEIGHTS), "unet/.*not a whole safetensors file"),
        (lambda f: truncate(f / "text_encoder/model.safetensors"), "text_encoder/.*not a whole safetensors file"),
        (lambda f: (f / "vae" / WEIGHTS).unlink(), r"vae: holds no \.safetensors file"),
        (lambda f: shutil.rmtree(f / "unet"), "unet/config.json: no such file"),
    ],
)
def test_bad_folders_are_refused_at_once(folder, tmp_path, change, message):
    with pytest.raises(DataFormatError, match=message):
        DiffusersInpainter(damaged(folder, tmp_path, change))


def test_weights_of_another_model_under_the_right_name(folder, tiny_diffusion, tmp_path):
    other = tmp_path / "unet"
    tiny_diffusion.denoiser(in_channels=4).save_pretrained(other)
    copy = damaged(folder, tmp_path, lambda f: shutil.copy(other / WEIGHTS, f / "unet" / WEIGHTS))
    with pytest.raises(DataFormatError, match="weights and config are of different models"):
        DiffusersInpainter(copy)


def test_what_only_loading_shows(folder, tmp_path):
    broken = DiffusersInpainter(damaged(folder, tmp_path, lambda f: shutil.rmtree(f / "scheduler")))
    with pytest.raises(DataFormatError, match="cannot be loaded"):
        broken([task()])


def test_absent_weights_and_packages(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, words in (
        ("oaac", "sd-inpainting.*get the .*stable-diffusion-2-inpainting"),
        ("flux", "flux-fill.*Non-Commercial"),
    ):
        with pytest.raises(Gena3DError, match=words):
            make_view_completer(name, device="cpu")
    monkeypatch.setattr(diffusers_folder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"needs 'diffusers': pip install 'gena3d\[diffusion\]'"):
        make_view_completer("oaac", checkpoint=str(folder))


def test_bad_options(folder):
    for options, words in (({"dtype": "int8"}, "dtype"), ({"steps": 0}, "steps"), ({"side": 70}, "multiple of 16")):
        with pytest.raises(InputError, match=words):
            DiffusersInpainter(folder, **options)
    with pytest.raises(InputError, match="'oaac' does not take these options"):
        make_view_completer("oaac", checkpoint=str(folder), colour="red")


def test_half_precision_files_are_found(folder, tmp_path):
    """A folder with the network in half precision only, as hubs offer it."""

    def rename(copy):
        for file in copy.glob("*/*.safetensors"):
            file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))

    found = DiffusersInpainter(damaged(folder, tmp_path, rename), steps=1)
    assert found([task()])[0].shape == (64, 64, 3)
