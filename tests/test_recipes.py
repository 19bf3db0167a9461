"""Every GAN recipe makes a step, with each technique and baseline that it offers."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from disentangle.parsing import parse_run
from disentangle.training.batches import Batch
from disentangle.training.loop import Session

RECIPES = sorted(Path("configs").glob("*gan*.yaml"), key=lambda path: path.stem)
CHOICES = {
    "none": [],
    "nog": ["--orthogonality", "[nog]"],
    "olr": ["--orthogonality", "[olr]"],
    "nog_olr": ["--orthogonality", "[nog, olr]"],
    "ow": ["--orthogonality", "[ow]"],
    "hessian_penalty": ["--objective.regulariser", "hessian_penalty"],
    "orojar": ["--objective.regulariser", "orojar"],
    "vp": ["--objective.regulariser", "variation_predictability"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    for i in range(4):
        Image.new("RGB", (40, 32), (60 * i, 100, 20)).save(path / f"{i}.png")
    return path


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_makes_a_step(recipe, choice, folder, tmp_path):
    if choice not in ("none", "orojar") and "64" not in recipe.stem:
        pytest.skip("each choice on two recipes, which differ in size and data else")
    options = ["--config", str(recipe), "--output", str(tmp_path / "run"), *CHOICES[choice]]
    options += ["--model.base_channels", "2", "--discriminator.base_channels", "2"]
    options += ["--training.batch_size", "2", "--training.workers", "0"]
    if "sprites" not in recipe.stem:
        options += ["--data.path", str(folder)]
    run, _ = parse_run(options)
    session = Session(run)
    size, channels = run.model["image_size"], run.model["image_channels"]
    batch = Batch(torch.rand(2, channels, size, size), step=16, samples=range(2), seed=0)
    terms = session.task.step(batch)
    assert all(term.isfinite() for term in terms.values())
    assert ("regulariser" in terms) == (choice in ("hessian_penalty", "orojar", "vp"))
