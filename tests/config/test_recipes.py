"""Every recipe makes a step, with what it offers."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from disentangle.config import RunConfig
from disentangle.config.parse import parse_run
from disentangle.data import RenderedShapes, RenderedSprites
from disentangle.training.batches import Batch
from disentangle.training.trainer import Trainer

RECIPES = sorted(Path("configs").glob("*gan*.yaml"), key=lambda path: path.stem)
CHOICES = {
    "none": [],
    "nog": ["--orthogonality", "[nog]"],
    "olr": ["--orthogonality", "[olr]"],
    "nog_olr": ["--orthogonality", "[nog, olr]"],
    "nog_gradient": ["--orthogonality", "[nog]", "--nog_scale", "gradient"],
    "nou": ["--orthogonality", "[nou]"],
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
    if "celeba" in recipe.stem:
        options += ["--data.crop", "32"]  # of the small images here
    run, _ = parse_run(options)
    trainer = Trainer(run)
    size, channels = run.model["image_size"], run.model["image_channels"]
    batch = Batch(torch.rand(2, channels, size, size), step=16, samples=range(2), seed=0)
    terms = trainer.task.step(batch)
    assert all(term.isfinite() for term in terms.values())
    assert ("regulariser" in terms) == (choice in ("hessian_penalty", "orojar", "vp"))


CLASSIFICATION = sorted(
    path for name in ("dbn", "gcp") for path in Path("configs").glob(f"{name}*")
)


@pytest.fixture(scope="module")
def class_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("classes")
    for i in range(8):
        file = path / "train" / f"class {i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), (30 * i, 100, 20)).save(file)
    return path


@pytest.mark.parametrize("techniques", ["[]", "[ow, nog, olr]", "[ow_kernel, nou]"])
@pytest.mark.parametrize("recipe", CLASSIFICATION, ids=lambda path: path.stem)
def test_a_classification_recipe_makes_a_step(recipe, techniques, class_folder, tmp_path):
    options = ["--config", str(recipe), "--output", str(tmp_path / "run")]
    options += ["--model.base_channels", "2", "--training.batch_size", "4"]
    options += ["--training.workers", "0", "--training.mixed_precision", "no"]
    options += ["--orthogonality", techniques]
    if "digits" not in recipe.stem:
        options += ["--data.name", "class_folder", "--data.path", str(class_folder)]
        options += ["--model.image_size", "32", "--model.classes", "2"]
        options += ["--objective.validation", "0", "--objective.test_split", "none"]
    run, _ = parse_run(options)
    task = Trainer(run).task
    network = task.learner.raw
    before = {name: x.clone() for name, x in network.named_parameters()}
    size, channels = run.model["image_size"], run.model["image_channels"]
    images, labels = torch.rand(4, channels, size, size), torch.tensor([0, 1, 0, 1])
    terms = task.step(Batch(images, 1, range(4), seed=0, labels=labels))
    assert terms["loss"].isfinite()
    for name, parameter in network.named_parameters():
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name


PAPER = ("animeface", "ffhq", "celeba", "lsun_church", "cifar10")  # its data sets or widths


def read_recipe(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_paper_draw_latents_for_the_step_of_the_generator(recipe):
    fresh = read_recipe(recipe).get("objective", {}).get("fresh_latents", False)
    assert fresh == recipe.stem.endswith(PAPER)


@pytest.mark.parametrize("recipe", CLASSIFICATION, ids=lambda path: path.stem)
def test_classification_recipes_follow_the_official_code(recipe):
    config = read_recipe(recipe)
    model, data = config["model"], config["data"]["name"]
    published = recipe.stem.endswith("published")
    if recipe.stem.startswith("gcp"):
        assert (model["meta_eps"], model["meta_method"]) == (0, "svd_pade")
    if data.startswith("cifar"):
        assert model["normalisation"] == ("cifar10" if published else data)
    options = model.get("meta_method", "auto"), model.get("meta_scale", "ones")
    if recipe.stem.startswith("dbn"):
        assert options == (("mpa", "uniform") if published else ("auto", "ones"))
    steps = 350 * 50_000 * (1 if published else 0.9) / 128
    if data.startswith("cifar"):
        assert config["training"]["steps"] == pytest.approx(steps, abs=1)
        assert config["objective"].get("validation", 0.1) == (0 if published else 0.1)


VAES = sorted(path for path in Path("configs").glob("*.yaml") if "task: vae" in path.read_text())


@pytest.fixture(scope="module")
def drawn():
    """Sets that stand in for the official files, by their channels; drawn once."""
    return {1: RenderedSprites(image_size=64), 3: RenderedShapes(image_size=64)}


@pytest.mark.parametrize("recipe", VAES, ids=lambda path: path.stem)
def test_a_vae_recipe_makes_a_step(recipe, drawn, tmp_path, monkeypatch):
    options = ["--config", str(recipe), "--output", str(tmp_path / "run")]
    options += ["--model.base_channels", "2", "--model.hidden_dim", "16"]
    options += ["--training.batch_size", "4"]
    if "factor" in recipe.stem:
        options += ["--objective.discriminator_dim", "8"]
    if read_recipe(recipe)["data"]["name"] not in ("sprites", "scene"):
        options += ["--data.path", "somewhere"]
    run, _ = parse_run(options)
    size, channels = run.model["image_size"], run.model["image_channels"]
    monkeypatch.setattr(RunConfig, "build_data", lambda run: drawn[channels])
    batch = Batch(torch.rand(4, channels, size, size), 1, range(4), seed=0)
    terms = Trainer(run).task.step(batch)
    assert all(term.isfinite() for term in terms.values())
    assert terms["loss/reconstruction"] > 0
