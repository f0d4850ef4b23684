"""Recipes: overrides with the types of their dataclass, and errors that name the key."""

from __future__ import annotations

import pytest

from gena3d_core.errors import InputError
from training.recipes import RECIPES, make_recipe
from training.recipes.settings import FlowRecipe, VaeRecipe
from training.train import main

NEEDED = ["data=d", "out=o", "max_steps=1"]


def test_overrides_have_the_types_of_the_fields():
    recipe = make_recipe(
        "flow_tiny",
        [*NEEDED, "vae=v", "batch=4", "learning_rate=1e-2", "overfit_one=yes", "views=1,2", "betas=0.8,0.95"],
    )
    assert isinstance(recipe, FlowRecipe)
    assert recipe.batch == 4
    assert recipe.learning_rate == 0.01
    assert recipe.overfit_one is True
    assert recipe.views == (1, 2)
    assert recipe.betas == (0.8, 0.95)
    assert recipe.preset == "tiny"


def test_the_paper_recipe_holds_the_papers_numbers():
    recipe = make_recipe("flow_paper", ["data=d", "out=o"])
    assert isinstance(recipe, FlowRecipe)
    assert (recipe.batch, recipe.learning_rate, recipe.epochs) == (32, 5e-5, 12.0)
    assert (recipe.views, recipe.condition_dropout) == ((1, 2, 3, 4), 0.1)
    assert (recipe.time_mean, recipe.time_std, recipe.adaptive_clip) == (1.0, 1.0, True)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_made(name):
    further = ["vae=v"] if name.startswith("flow") or name == "scene_tiny" else []
    assert make_recipe(name, [*NEEDED, *further])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spee=1"], r"unknown key 'spee', one of .*accumulate.*kl_weight"),
        (["batch=x"], "batch must be of type int, got 'x'"),
        (["batch"], "'batch' is no key=value"),
        (["betas=1"], "betas needs 2 values"),
        (["precision=half"], "precision must be one of float32, bfloat16"),
        (["overfit_one=maybe"], "overfit_one must be true or false"),
        (["batch=3", "accumulate=2"], "multiple of accumulate"),
        (["held_out=2"], "held_out must lie between 0 and 1"),
        (["max_steps=0"], "has no end"),
        (["data="], "data is missing"),
        (["learning_rate=0"], "learning_rate must be positive"),
    ],
)
def test_wrong_words_name_the_key(words, message):
    with pytest.raises(InputError, match=message):
        make_recipe("vae_tiny", [*NEEDED, *words])


def test_wrong_flow_settings():
    with pytest.raises(InputError, match="vae is missing"):
        make_recipe("flow_edge", NEEDED)
    with pytest.raises(InputError, match="variants"):
        make_recipe("flow_edge", [*NEEDED, "vae=v", "variants=3"])
    with pytest.raises(InputError, match="sum to more than 1"):
        make_recipe("flow_edge", [*NEEDED, "vae=v", "condition_dropout=0.9", "cloud_dropout=0.9"])
    with pytest.raises(InputError, match="unknown recipe 'flow', one of vae_tiny"):
        make_recipe("flow", NEEDED)


def test_a_vae_recipe_knows_no_views():
    assert isinstance(make_recipe("vae_edge", NEEDED), VaeRecipe)
    with pytest.raises(InputError, match="unknown key 'views'"):
        make_recipe("vae_edge", [*NEEDED, "views=1"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["vae_tiny", "spee=1"], 2, "unknown key 'spee'"),
        (["vae_tiny", "data=nowhere", "out=OUT", "max_steps=1"], 1, "nowhere holds no shard"),
        (["vae_tiny", "data=nowhere", "out=OUT", "max_steps=1", "device=abacus"], 1, "unknown device 'abacus'"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys, words, code, message):
    assert main([word.replace("OUT", str(tmp_path / "out")) for word in words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
