"""View completers: observations in, observations with completed views out."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.amodal.cache import CompletionCache, content_key, size_of
from gena3d_core.amodal.occlusion import occlusion_masks
from gena3d_core.amodal.open_world import Completion, OpenWorldConfig
from gena3d_core.amodal.views import amodal_mask, extended_view, hidden_objects, with_completions
from gena3d_core.errors import CancelledError, InputError, MemoryBudgetError
from gena3d_core.geometry import camera
from gena3d_core.outlines import PromptedOutline, interior_points, mask_model_of
from gena3d_core.segmentation.mask_models import Candidates
from gena3d_core.view_completion import (
    VIEW_COMPLETERS,
    MasksOnly,
    OpenWorldCompleter,
    chosen_view_completer,
    make_view_completer,
)

ONCE = OpenWorldConfig(max_iterations=1)
EYES = [(0.7, 0.0, 0.25), (0.0, 0.7, 0.25)]


@pytest.fixture(scope="module")
def observations(solids):
    """A cylinder and a post, which hides part of the cylinder from the first eye and nothing from the second."""
    scene = [solids.Cylinder((0, 0, 0), 0.05, 0.12), solids.Box((0.15, 0.0, 0.1), (0.01, 0.012, 0.1))]
    found = []
    for number in range(2):
        one = solids.observe(scene, EYES, number=number)
        masks = occlusion_masks(one.views, one.visible_masks, one.points_m, one.support)
        found.append(replace(one, id=number + 1, label=("cup", "post")[number], occlusion_masks=masks))
    return found


def test_only_what_is_hidden_changes(observations, scripted):
    inpainter = scripted.GreedyInpainter()
    cup, post = OpenWorldCompleter(inpainter, config=ONCE).complete(observations, seed=3)
    assert post is observations[1]
    assert inpainter.batches == [1]
    before = observations[0]
    assert cup.completed_masks is not None
    assert not cup.completed_masks[1].any()
    np.testing.assert_array_equal(cup.views[1].color, before.views[1].color)
    completed = cup.completed_masks[0]
    assert completed.sum() > 0.5 * before.occlusion_masks[0].sum()
    assert not (completed & before.visible_masks[0]).any()
    assert (cup.occlusion_masks[0] >= completed).all()
    np.testing.assert_array_equal(cup.views[0].color[~completed], before.views[0].color[~completed])
    np.testing.assert_array_equal(cup.views[0].depth_m, before.views[0].depth_m)
    np.testing.assert_array_equal(amodal_mask(cup, 0), before.visible_masks[0] | completed)
    # The guess has the cup's colour, not that of the post which stood there.
    assert np.abs(cup.views[0].color[completed].mean(axis=0) - (200, 40, 40)).max() < 12


def test_seeds_and_scenes_decide_nothing_else(observations, scripted):
    def run(seed, items=observations):
        return OpenWorldCompleter(scripted.GreedyInpainter(), config=ONCE).complete(items, seed=seed)[0].views[0].color

    np.testing.assert_array_equal(run(3), run(3))
    assert (run(3) != run(4)).any()
    # Other objects in the list, and their order, do not matter to an object's seed.
    seeds = [hidden_objects(items, 0, 3, "{label}") for items in (observations, observations[::-1])]
    assert seeds[0][0].seed == seeds[1][1].seed
    assert seeds[0][0].prompt == "cup"
    assert seeds[0][0].seed != seeds[0][1].seed != hidden_objects(observations, 1, 3, "{label}")[1].seed


def test_what_was_done_is_remembered(observations, scripted):
    inpainter = scripted.GreedyInpainter()
    completer = OpenWorldCompleter(inpainter, config=ONCE)
    first = completer.complete(observations, seed=0)
    assert (completer.cache.hits, completer.cache.misses) == (0, 4)
    again = completer.complete(observations, seed=0)
    assert inpainter.batches == [1]
    assert completer.cache.hits == 4
    np.testing.assert_array_equal(first[0].views[0].color, again[0].views[0].color)
    completer.complete(observations, seed=1)
    assert inpainter.batches == [1, 1]
    completer.close()
    assert inpainter.batches == [1, 1, 0]
    completer.complete(observations, seed=1)
    assert inpainter.batches == [1, 1, 0]


def test_keys_tell_everything_apart(observations):
    item = hidden_objects(observations, 0, 0, "{label}")[0]
    dot = np.zeros_like(item.visible)
    dot[0, 0] = True
    color = item.color.copy()
    color[0, 0, 0] ^= 1
    changed = [
        replace(item, color=color), replace(item, visible=item.visible ^ dot), replace(item, prompt="other"),
        replace(item, occlusion=item.occlusion ^ dot), replace(item, occluders=item.occluders ^ dot),
        replace(item, seed=item.seed + 1),
    ]  # fmt: skip
    keys = {content_key(entry, "network") for entry in (item, *changed)} | {content_key(item, "other network")}
    assert len(keys) == 8
    assert content_key(replace(item, color=item.color.copy()), "network") == content_key(item, "network")


def test_the_cache_is_bounded():
    def completion(value):
        picture = np.full((10, 10, 3), value, np.uint8)
        return Completion(picture, picture[..., 0] > 0, picture[..., 0] > 0, (0, 0), 1, "no growth")

    cache = CompletionCache(max_bytes=2 * size_of(completion(0)))
    for value in range(3):
        cache.put(str(value), completion(value))
        assert cache.get("0") is not None or value == 2
    # "0" was asked for after "1" came, so "1" went.
    assert [cache.get(key) is not None for key in "012"] == [True, False, True]
    assert len(cache) == 2


def test_memory_bounds_the_batch(solids, scripted):
    scene = [solids.Box((0.0, y, 0.03), (0.02, 0.02, 0.03)) for y in (-0.12, -0.04, 0.04, 0.12)] + [
        solids.Box((0.1, 0.0, 0.015), (0.005, 0.2, 0.015))
    ]  # a low wall before all of them
    found = []
    for number in range(5):
        one = solids.observe(scene, EYES[:1], number=number)
        masks = occlusion_masks(one.views, one.visible_masks, one.points_m, one.support)
        found.append(replace(one, id=number, occlusion_masks=masks))
    whole = scripted.GreedyInpainter()
    expected = OpenWorldCompleter(whole, tasks_per_pass=4, config=ONCE).complete(found)
    assert whole.batches == [4]
    small = scripted.GreedyInpainter(out_of_memory_above=2)
    got = OpenWorldCompleter(small, tasks_per_pass=3, config=ONCE).complete(found)
    assert small.batches == [3, 1, 1, 1, 1]
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_array_equal(a.views[0].color, b.views[0].color)
    with pytest.raises(MemoryBudgetError, match="out of memory"):
        OpenWorldCompleter(scripted.GreedyInpainter(out_of_memory_above=0)).complete(found)


def test_progress_and_cancelling(observations, scripted):
    seen = []
    inpainter = scripted.GreedyInpainter()
    OpenWorldCompleter(inpainter, config=ONCE).complete(
        observations, progress=lambda stage, share: seen.append((stage, share))
    )
    assert seen == [("amodal", 0.5), ("amodal", 1.0)]
    with pytest.raises(CancelledError):
        OpenWorldCompleter(inpainter, config=ONCE).complete(observations, cancelled=lambda: True)
    assert inpainter.batches == [1]
    assert OpenWorldCompleter(inpainter, config=ONCE).complete([]) == []


def test_larger_views_keep_their_geometry(observations, rng):
    view = replace(observations[0].views[0], depth_confidence=np.ones((240, 320), np.float32))
    completed = np.zeros((250, 330), bool)
    completed[:10, 5] = True
    found = Completion(
        rng.integers(0, 256, (250, 330, 3), dtype=np.uint8), completed, completed, (7, 10), 1, "no growth"
    )
    larger = extended_view(view, found)
    points = rng.normal(0.0, 0.05, (50, 3)) + np.array([0, 0, 0.7])
    before, after = (camera.project(points, v.intrinsics)[0] for v in (view, larger))
    np.testing.assert_allclose(after, before + np.array([7, 10]), atol=1e-4)
    np.testing.assert_array_equal(larger.depth_m[10:, 7:327], view.depth_m)
    assert np.isnan(larger.depth_m[:10]).all()
    assert larger.depth_confidence[:10].max() == 0
    one = with_completions(observations[0], {0: found})
    assert one.views[0].color.shape == (*one.completed_masks[0].shape, 3) == (250, 330, 3)
    assert one.visible_masks[0].sum() == observations[0].visible_masks[0].sum()
    nothing = replace(found, completed=np.zeros_like(completed))
    assert with_completions(observations[0], {0: nothing}) is observations[0]


def test_completers_by_name(observations, monkeypatch, tmp_path):
    none = make_view_completer("none", device="cpu", mask_model=None)
    assert isinstance(none, MasksOnly)
    assert none.complete(observations)[0] is observations[0]
    assert set(VIEW_COMPLETERS) == {"none", "oaac", "flux", "pix2gestalt"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert chosen_view_completer("auto") == "none"
    with pytest.raises(InputError, match="unknown amodal completer 'no_such': choose one of auto, none"):
        make_view_completer("no_such")
    with pytest.raises(InputError, match="tasks_per_pass"):
        OpenWorldCompleter(None, tasks_per_pass=0)
    with pytest.raises(InputError, match="label"):
        OpenWorldCompleter(None, prompt="{name}")


class Answering:
    """A mask model whose answers are given; it remembers what it was asked."""

    def __init__(self, *masks, scores):
        self.masks, self.scores, self.asked = np.stack(masks), np.array(scores, np.float32), []

    def encode(self, images):
        return list(images)

    def candidates(self, embedding, prompts):
        self.asked.append(prompts)
        return Candidates(self.masks[None], self.scores[None], self.scores[None])


def test_a_promptable_segmenter_draws_the_outline(observations, scripted):
    inpainter = scripted.GreedyInpainter()
    completer = OpenWorldCompleter(inpainter, config=ONCE)
    item = hidden_objects(observations, 0, 0, "")[0]
    tasks = []
    inpainter_call = inpainter._paint
    inpainter._paint = lambda task: tasks.append(task) or inpainter_call(task)
    completer.complete(observations)
    task, painted = tasks[0], inpainter_call(tasks[0])
    (rough,) = completer.outliner([task], [painted])
    smaller = rough.copy()
    rows = np.flatnonzero((rough & ~task.visible).any(axis=1))
    smaller[rows[: len(rows) // 2]] &= task.visible[rows[: len(rows) // 2]]
    model = Answering(np.ones_like(rough), smaller, ~rough, scores=[0.9, 0.8, 0.95])
    (found,) = PromptedOutline(model)([task], [painted])
    # The best answer is another thing, the next one the whole picture: both are not believed.
    np.testing.assert_array_equal(found, smaller | task.visible)
    asked = model.asked[0]
    x0, y0, x1, y1 = asked.boxes_xyxy[0]
    assert rough[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].sum() == rough.sum()
    columns, lines = asked.points_xy[0].astype(int).T
    assert task.visible[lines, columns].all()
    (kept,) = PromptedOutline(Answering(~rough, scores=[0.9]))([task], [painted])
    np.testing.assert_array_equal(kept, rough)
    assert item.visible.any()
    assert PromptedOutline(model)([], []) == []


def test_random_networks_are_asked_and_not_believed(observations, scripted):
    """The package's own SAM 2 with random weights: asked in its own way, its answer is no outline of the object."""
    pytest.importorskip("transformers", reason="runs SAM 2 of transformers: pip install 'gena3d[transformers]'")
    from gena3d_core.benchmarks.tiny_networks import tiny_sam2
    from gena3d_core.segmentation.promptable import Promptable
    from gena3d_core.segmentation.transformers_mask_model import FAMILIES, TransformersMaskModel

    model = TransformersMaskModel(tiny_sam2(), FAMILIES["sam2"])
    assert mask_model_of(Promptable(model)) is model
    plain = OpenWorldCompleter(scripted.GreedyInpainter(), config=ONCE)
    asking = OpenWorldCompleter(scripted.GreedyInpainter(), config=ONCE, outliner=PromptedOutline(model))
    expected, got = (completer.complete(observations, seed=1)[0] for completer in (plain, asking))
    assert got.completed_masks is not None
    assert not (got.completed_masks[0] & observations[0].visible_masks[0]).any()
    assert got.completed_masks[0].sum() <= 1.5 * expected.completed_masks[0].sum()


def test_points_lie_inside():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 5:25] = True
    mask[18:22, 25:55] = True
    points = interior_points(mask, 3)
    assert mask[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    assert np.linalg.norm(points[0] - points[1]) > 4
    dot = np.zeros((9, 9), bool)
    dot[0, 8] = True
    assert interior_points(dot, 3).tolist() == [[8.0, 0.0]]
    assert mask_model_of(object()) is None
