"""The pipeline with 2D amodal completion: what the generator is shown, and what the other stages keep."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from gena3d_core import view_completion
from gena3d_core.cli import main
from gena3d_core.errors import InputError, StageError
from gena3d_core.observed import ObservedSurface
from gena3d_core.pipeline import Pipeline, PipelineConfig
from gena3d_core.scene_mode import SceneResult
from gena3d_core.types import ObjectMask, Segmentation
from gena3d_core.view_completion import OpenWorldCompleter

EYES = [(0.7, 0.0, 0.25), (0.0, 0.7, 0.25)]


class Painter:
    """Paints the whole region in the object's mean colour."""

    side, name = 96, "painter"

    def __init__(self):
        self.closed = 0

    def __call__(self, tasks):
        return [
            np.where(t.region[..., None], t.picture[t.visible].mean(axis=0), t.picture).astype(np.uint8) for t in tasks
        ]

    def close(self):
        self.closed += 1


class Watched(ObservedSurface):
    """Remembers what it is given."""

    free_space_resolution = 16

    def generate(self, observations, **options):
        self.shown = list(observations)
        return super().generate(observations, **options)


@pytest.fixture
def pipeline(solids, monkeypatch):
    """A pipeline on a cylinder behind a post, with known masks and a completer that needs no weights."""
    scene = [solids.Cylinder((0, 0, 0), 0.05, 0.12), solids.Box((0.15, 0.0, 0.1), (0.01, 0.012, 0.1))]
    rendered = [solids.render(scene, eye, (0, 0, 0.03), name=f"v{n}") for n, eye in enumerate(EYES)]
    objects = [
        ObjectMask(number + 1, "thing", 1.0, tuple(index == number for _, index in rendered)) for number in range(2)
    ]
    found = Segmentation(tuple(objects), solids.TABLE)
    made = {}

    def make(device, mask_model, **options):
        made.update(device=device, mask_model=mask_model, options=options)
        return OpenWorldCompleter(Painter())

    monkeypatch.setattr(view_completion, "VIEW_COMPLETERS", {**view_completion.VIEW_COMPLETERS, "painter": make})

    def build(amodal):
        config = PipelineConfig(generator="observed", amodal=amodal, amodal_options={"steps": 3}, refine_poses=False)
        built = Pipeline(config)
        built._segmenter = lambda views, prompts: found
        built._generator, built._free_space_resolution = Watched(), 16
        return built, [view for view, _ in rendered], made

    return build


def test_the_generator_is_shown_completed_views(pipeline):
    built, views, made = pipeline("painter")
    seen = []
    result = built.run(views, seed=5, progress=lambda stage, share: seen.append((stage, share)))
    assert made["options"] == {"steps": 3}
    assert (made["device"], made["mask_model"]) == ("cpu", None)
    cup, post = built._generator.shown
    assert cup.completed_masks is not None
    assert cup.completed_masks[0].sum() > 200
    assert post.completed_masks is None
    assert (cup.views[0].color != views[0].color).any()
    # The others see what the cameras saw.
    original = result.observations[0]
    assert original.completed_masks is None
    np.testing.assert_array_equal(original.views[0].color, views[0].color)
    assert original.free_space is cup.free_space
    assert cup.free_space.state.shape == (16, 16, 16)
    shares = [share for stage, share in seen if stage == "amodal"]
    assert len(shares) >= 3
    assert shares == sorted(shares)
    # On a CPU, nothing is closed: it would have to be loaded again.
    assert built._view_completer.inpainter.closed == 0


def test_without_a_completer_nothing_changes(pipeline):
    built, views, _ = pipeline("none")
    result = built.run(views)
    assert all(o.completed_masks is None for o in built._generator.shown)
    assert result.observations[0].free_space is built._generator.shown[0].free_space
    assert "amodal" in result.scene.timings_s


def test_failures_name_the_stage(pipeline, monkeypatch):
    built, views, _ = pipeline("painter")

    def broken(tasks):
        raise RuntimeError("no such kernel")

    built._view_completer.inpainter.__class__ = type(
        "Broken", (Painter,), {"__call__": lambda self, tasks: broken(tasks)}
    )
    with pytest.raises(StageError, match="stage 'amodal' failed: RuntimeError: no such kernel"):
        built.run(views)


def test_memory_goes_back_on_an_accelerator(pipeline):
    built, views, _ = pipeline("painter")
    built.config = replace(built.config, device="meta")
    observations = built.run(views).observations
    assert built._view_completer.inpainter.closed == 1
    assert len(observations) == 2


def test_mode_scene_says_that_it_takes_masks_only(pipeline, monkeypatch):
    built, views, _ = pipeline("painter")
    built._generator = None
    monkeypatch.setattr(built, "_scene_made", lambda *_, **__: SceneResult((), {}, True, ()))
    assert any("'painter' does nothing in mode 'scene'" in warning for warning in built.run(views).scene.warnings)


def test_names_and_options_are_checked(capsys, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="unknown amodal completer 'magic'"):
        Pipeline(PipelineConfig(amodal="magic", generator="observed"))
    monkeypatch.setattr(sys, "stdin", None)
    recording = tmp_path / "transforms.json"
    recording.write_text("{}")
    given = ["reconstruct", str(recording), "--out", str(tmp_path / "out"), "--generator", "observed"]
    assert main([*given, "--amodal", "magic"]) == 2
    assert "--amodal 'magic' is unknown" in capsys.readouterr().err
    assert main([*given, "--amodal-checkpoint", "folder"]) == 2
    assert "--amodal 'none' has no use for --amodal-checkpoint" in capsys.readouterr().err
