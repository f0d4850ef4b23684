"""pix2gestalt's networks with random weights: what its adapter gives them, and what is said of bad folders."""

import shutil

import numpy as np
import pytest
import torch

from gena3d_core.amodal.inpainter import InpaintTask
from gena3d_core.amodal.pix2gestalt import Pix2Gestalt, on_background
from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.view_completion import OpenWorldCompleter, make_view_completer


@pytest.fixture(scope="module")
def folder(tiny_diffusion, tmp_path_factory):
    return tiny_diffusion.save_pix2gestalt(tmp_path_factory.mktemp("pix2gestalt"))


@pytest.fixture(scope="module")
def model(folder):
    return Pix2Gestalt(folder, steps=2)


def task(seed=0, visible_from=20):
    scene = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    visible = np.zeros((64, 64), bool)
    visible[visible_from:, :30] = True
    return InpaintTask(np.where(visible[..., None], scene, 128).astype(np.uint8), ~visible, scene, visible,
                       (1, 2, 3), (0, 0, 64, 64), "", seed)  # fmt: skip


def difference(a, b):
    return np.abs(a.astype(int) - b).max()


def test_seeds_masks_and_batches(model):
    alone = [model([task(seed)])[0] for seed in (0, 1)]
    assert model.side == 64
    assert alone[0].shape == (64, 64, 3)
    np.testing.assert_array_equal(alone[0], model([task(0)])[0])
    assert difference(alone[0], alone[1]) > 20
    together = model([task(1), task(0)])
    # A rounded pixel may fall to the other side of the background's threshold.
    assert np.mean(np.abs(together[0].astype(int) - alone[1]) > 2) < 0.01
    assert np.mean(np.abs(together[1].astype(int) - alone[0]) > 2) < 0.01
    assert difference(model([task(0, visible_from=40)])[0], alone[0]) > 0
    assert model([]) == []


def test_what_the_network_is_given(folder, monkeypatch):
    """Noisy latent, latents of picture and mask, context; zeros for the branch without conditions."""
    model = Pix2Gestalt(folder, steps=1, guidance_scale=3.0, eta=0.0)
    networks = model.open()
    seen = []
    original = networks["unet"].forward

    def spy(sample, timestep, encoder_hidden_states, **more):
        seen.append((sample, encoder_hidden_states))
        return original(sample, timestep, encoder_hidden_states, **more)

    monkeypatch.setattr(networks["unet"], "forward", spy)
    given = task()
    model([given])
    (sample, context), vae = seen[0], networks["vae"]
    assert len(seen) == 1
    assert sample.shape == (2, 12, 32, 32)
    assert context.shape == (2, 1, 32)

    def latent(image):
        scaled = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1.0
        with torch.inference_mode():
            return vae.encode(scaled).latent_dist.mode()[0]

    mask = np.repeat(given.visible[..., None], 3, axis=2) * 255.0
    noise = torch.randn((1, 4, 32, 32), generator=torch.Generator("cpu").manual_seed(0))[0]
    torch.testing.assert_close(sample[0, :4], noise)
    torch.testing.assert_close(sample[0, 4:8], latent(given.scene), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(sample[0, 8:], latent(mask), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(sample[1, :4], sample[0, :4])
    assert not sample[1, 4:].any()
    assert not context[1].any()
    assert context[0].any()


def test_background_is_replaced():
    picture = np.full((32, 32, 3), 250, np.uint8)
    picture[8:24, 8:24] = (200, 30, 30)
    picture[1, 1] = 245
    out = on_background(picture, (128, 128, 128))
    assert (out[8:24, 8:24] == (200, 30, 30)).all()
    assert (out[:8] == 128).all()


def test_by_name_and_close(folder):
    completer = make_view_completer("pix2gestalt", checkpoint=str(folder), steps=1)
    assert isinstance(completer, OpenWorldCompleter)
    assert completer.config.max_iterations == 1
    before = completer.inpainter([task()])[0]
    completer.close()
    assert completer.inpainter._networks is None
    np.testing.assert_array_equal(before, completer.inpainter([task()])[0])


def test_bad_folders(folder, tiny_diffusion, tmp_path):
    release = tmp_path / "release"
    release.mkdir()
    (release / "epoch=000005.ckpt").write_bytes(b"x")
    with pytest.raises(DataFormatError, match=r"lacks unet/.*epoch=000005\.ckpt is the release as it is.*converted"):
        Pix2Gestalt(release)
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "unet")
    tiny_diffusion.denoiser(9).save_pretrained(copy / "unet")
    with pytest.raises(DataFormatError, match="takes 9 channels, that of pix2gestalt takes 12"):
        Pix2Gestalt(copy)
    shutil.rmtree(copy / "unet")
    tiny_diffusion.denoiser(12, context=64).save_pretrained(copy / "unet")
    with pytest.raises(DataFormatError, match="does not lead to the 64 channels"):
        Pix2Gestalt(copy)
    (copy / "projection.safetensors").unlink()
    with pytest.raises(DataFormatError, match=r"lacks projection\.safetensors"):
        Pix2Gestalt(copy)
    with pytest.raises(InputError, match="steps"):
        Pix2Gestalt(folder, steps=0)
