import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from math import nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed, multiprocessing
from torch.distributions import Normal, kl_divergence

from disentangle import evaluate, train
from disentangle.data import RenderedSprites, scale_pixels
from disentangle.evaluation.generator_target import GeneratorTarget
from disentangle.evaluation.processes import Processes, SharedError
from disentangle.evaluation.progress import Progress
from disentangle.evaluation.registry import METRICS, choose_metrics
from disentangle.evaluation.representations import Points, draw_points
from disentangle.evaluation.request import Draws
from disentangle.evaluation.runner import Job
from disentangle.metrics import activeness, dci, mig, udr
from disentangle.models import Axis, load_model, sefa_axes, unrotate_latents
from disentangle.models.subspace_vae import ConvEncoder
from tests.helpers.launching import ON_CPU, on_two_processes

SMALL = ["--points", "300", "--test_points", "150", "--activeness.latents", "4"]
FEW = [
    *SMALL,
    *("--factor_vae_score.train_points", "20", "--factor_vae_score.test_points", "10"),
    *("--factor_vae_score.variance_points", "100", "--fit_encoder.steps", "3"),
]
CHUNKS = torch.arange(2)
PATHS = ["--features.distance", "random", "--perceptual_path_length.samples", "20"]
FEATURES = [
    *("--features.network", "random", "--features.images", "40"),
    *("--features.reference_images", "50", "--kernel_inception_distance.subset_size", "20"),
]
PAIRS = ["--pairs", "40", "--test_ratio", "0.5", "--epochs", "1", "--width", "2"]
PAIRS = [word.replace("--", "--variation_predictability.") for word in PAIRS]


@pytest.fixture
def run(request, tmp_path):
    options = request.getfixturevalue(request.param)
    assert train.main([*options, "--training.steps", "2"]) == 0
    return tmp_path / "run"


def scores_of(folder):
    return json.loads((folder / "scores.json").read_text())["scores"]


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_a_vae_is_scored_by_all_quick_metrics(run, capsys):
    assert evaluate.main([str(run), *FEW, "--points", "1000"]) == 0
    report = json.loads((run / "scores.json").read_text())
    assert report["step"] == 2
    scores = report["scores"]
    assert list(scores) == [
        name for name, m in METRICS.items() if m.quick and name not in ("udr", "accuracy")
    ]
    assert scores["mig"]["protocol"] == {"points": 1_000, "bins": 20}
    assert scores["sap"]["protocol"]["test_points"] == 150
    assert scores["factor_vae_score"]["protocol"]["train_points"] == 20
    assert all(score["seconds"] >= 0 for score in scores.values())
    assert all(score["seed"] == 0 for score in scores.values())
    assert set(scores["irs"]["versions"]) >= {"disentangle", "torch", "numpy", "scikit-learn"}
    assert len(scores["mig"]["details"]["mutual_information"]) == 10
    printed = capsys.readouterr().out
    for word in ("mig ", "histogram_dci, completeness", "codes, code 9", "scores.json"):
        assert word in printed
    assert "udr" not in printed
    for name in ("mutual-information", "dci-importance"):
        with Image.open(run / "plots" / f"{name}.png") as image:
            assert image.size[0] > 400


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_scores_are_reproducible_and_depend_on_the_seed(run):
    reports = []
    for seed in ("3", "3", "4"):
        names = "mig,sap,factor_vae_score,activeness"
        evaluate.main([str(run), *FEW, "--metrics", names, "--seed", seed])
        reports.append({name: score["details"] for name, score in scores_of(run).items()})
    assert reports[0] == reports[1] != reports[2]


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_scores_are_those_of_the_functions(run):
    evaluate.main([str(run), *SMALL, "--metrics", "mig", "--mig.bins", "10"])
    data, model = RenderedSprites(image_size=32), load_model(run / "model")
    factors = data.sample_factors(450, np.random.default_rng(0))
    codes = model.encode(scale_pixels(data.render(factors))).detach()
    expected = mig(codes[:300], factors[:300], bins=10)
    assert scores_of(run)["mig"]["score"] == pytest.approx(expected.score, rel=1e-6)


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_the_axes_of_sefa_are_judged_beside_the_model_s_own(run, capsys):
    evaluate.main([str(run), *SMALL, "--metrics", "activeness"])
    capsys.readouterr()
    assert evaluate.main([str(run), *SMALL, "--sefa"]) == 0
    printed = capsys.readouterr().out
    assert "SeFa of decoder.subspaces.0, rank 1 (gain 1)" in printed
    assert "not computed" not in printed
    scores = scores_of(run)
    assert list(scores) == ["activeness", "activeness (SeFa)"]
    assert scores["activeness (SeFa)"]["protocol"]["axes"] == "SeFa of decoder.subspaces.0"
    model = load_model(run / "model")
    axes = sefa_axes(model)
    y = model.sample_latents(4, torch.Generator().manual_seed(0))
    directions = torch.stack([axis.direction for axis in axes])
    expected = activeness(model.decode, unrotate_latents(y, axes), directions).per_axis
    found = scores["activeness (SeFa)"]["details"]["per_axis"]
    assert found == pytest.approx(expected.tolist(), rel=1e-4)
    assert scores["activeness"]["details"]["per_axis"] != pytest.approx(found, rel=0.01)
    assert evaluate.main([str(run), *SMALL, "--sefa", "--sefa_normalise"]) == 0
    protocol = scores_of(run)["activeness (SeFa)"]["protocol"]
    assert protocol["axes"] == "normalised SeFa of decoder.subspaces.0"


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_pairs_along_the_axes_of_sefa(run):
    evaluate.main([str(run), *PAIRS, "--metrics", "variation_predictability", "--sefa"])
    scores = scores_of(run)
    (name,) = scores
    assert name == "variation_predictability (SeFa)"
    assert scores[name]["protocol"]["coordinates"] == list(range(10))


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_an_eigengan_has_no_axes_of_sefa(run, complaint):
    message = complaint(evaluate.main, [run, "--sefa"])
    assert "--sefa needs a layer that takes in all latents" in message
    assert "EigenGAN takes in its latents at several layers" in message


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_every_image_is_encoded_once(run, monkeypatch):
    encoded = []
    encode = GeneratorTarget._encode_images

    def spy(self, indices):
        encoded.extend(indices.tolist())
        return encode(self, indices)

    monkeypatch.setattr(GeneratorTarget, "_encode_images", spy)
    evaluate.main(
        [
            str(run),
            *FEW,
            "--metrics",
            "mig,sap,irs,factor_vae_score",
            "--factor_vae_score.prune_below",
            "0",
        ]
    )
    assert len(encoded) > 1000
    assert len(set(encoded)) == len(encoded)


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_scores_of_the_same_step_are_kept(run):
    evaluate.main([str(run), *SMALL, "--metrics", "mig,irs"])
    evaluate.main([str(run), *SMALL, "--metrics", "irs,sap", "--irs.bins", "10"])
    scores = scores_of(run)
    assert set(scores) == {"mig", "irs", "sap"}
    assert scores["irs"]["protocol"]["bins"] == 10
    report = json.loads((run / "scores.json").read_text())
    (run / "scores.json").write_text(json.dumps(report | {"step": 1}))
    evaluate.main([str(run), *SMALL, "--metrics", "sap"])
    assert set(scores_of(run)) == {"sap"}


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_a_gan_gets_the_activeness_of_every_axis(run, capsys):
    assert evaluate.main([str(run), *FEW]) == 0
    scores = scores_of(run)
    assert list(scores) == ["activeness"]
    assert len(scores["activeness"]["details"]["per_axis"]) == 18
    printed = capsys.readouterr().out
    assert "block 2, dimension 5" in printed
    assert (
        "not computed: needs codes: a model with an encoder, or --encoder fit (mig, sap" in printed
    )


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_a_gan_is_scored_by_an_encoder_that_is_fitted(run):
    assert evaluate.main([str(run), *FEW, "--encoder", "fit", "--metrics", "mig,sap"]) == 0
    scores = scores_of(run)
    assert list(scores) == ["fit_encoder", "mig (fitted encoder)", "sap (fitted encoder)"]
    assert scores["fit_encoder"]["protocol"]["steps"] == 3
    assert len(scores["fit_encoder"]["details"]["r_squared"]) == 18
    assert np.shape(scores["mig (fitted encoder)"]["details"]["mutual_information"]) == (18, 5)
    assert (run / "plots" / "mutual-information-fitted-encoder.png").is_file()


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_scores_without_codes_are_not_those_of_a_fitted_encoder(run, capsys):
    assert evaluate.main([str(run), *FEW, "--encoder", "fit", "--metrics", "mig,activeness"]) == 0
    assert list(scores_of(run)) == ["fit_encoder", "mig (fitted encoder)", "activeness"]
    assert "block 2, dimension 5" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_images_of_a_gan_are_compared_with_those_of_its_data_set(run, capsys):
    names = "frechet_inception_distance,kernel_inception_distance,perceptual_path_length"
    assert evaluate.main([str(run), *FEATURES, *PATHS, "--metrics", names]) == 0
    scores = scores_of(run)
    assert set(scores) == set(names.split(","))
    assert scores["frechet_inception_distance"]["details"]["points"] == [40, 50]
    assert all(score["score"] > 0 for score in scores.values())
    assert "random features, not comparable with published values" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_runs_are_compared_with_each_other(run, tiny_vae, tmp_path, capsys):
    other = tmp_path / "other"
    train.main([*tiny_vae, "--training.steps", "2", "--seed", "1", "--output", str(other)])
    capsys.readouterr()
    both = [str(run), str(other), str(run)]  # one of them twice
    assert evaluate.main([*both, *SMALL, "--metrics", "udr,mig", "--format", "csv"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "run,metric,score,seconds,protocol"
    assert [line.split(",")[1] for line in lines[1:]] == ["mig", "udr", "mig", "udr"]
    assert "scores.json" in captured.err
    entry = scores_of(other)["udr"]
    assert entry["protocol"]["runs"] == [str(run), str(other)]
    assert entry["protocol"]["across_settings"] is False
    assert np.shape(entry["details"]["similarity"]) == (2, 2, 10, 10)
    assert entry["score"] == scores_of(run)["udr"]["details"]["per_run"][1]


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_runs_of_other_settings_are_peers_on_request_only(run, tiny_vae, tmp_path, complaint):
    folders = [str(run)]
    for name, seed, beta in (("seed", "1", "1"), ("beta", "0", "8"), ("both", "1", "8")):
        changes = ["--training.steps", "2", "--seed", seed, "--objective.beta", beta]
        folders.append(str(tmp_path / name))
        train.main([*tiny_vae, *changes, "--output", folders[-1]])
    options = [*SMALL, "--metrics", "udr"]
    assert evaluate.main([*folders, *options]) == 0
    found = [scores_of(Path(folder))["udr"]["protocol"]["runs"] for folder in folders]
    assert found == [folders[:2], folders[:2], folders[2:], folders[2:]]
    across = [*options, "--udr.across_settings", "true"]
    message = complaint(evaluate.main, [folders[0], folders[2], *options])
    assert "or with --udr.across_settings true" in message
    assert evaluate.main([folders[0], folders[2], *across]) == 0
    entry = scores_of(run)["udr"]
    assert entry["protocol"]["runs"] == [folders[0], folders[2]]
    assert entry["protocol"]["across_settings"] is True


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_udr_leaves_out_the_codes_whose_posterior_is_the_prior(run, tiny_vae, tmp_path):
    other = tmp_path / "other"
    train.main([*tiny_vae, "--training.steps", "2", "--seed", "1", "--output", str(other)])
    data = RenderedSprites(image_size=32)
    images = scale_pixels(data.render(data.sample_factors(450, np.random.default_rng(0))[:300]))
    codes, kl = [], []
    for folder in (run, other):
        _, mean, log_variance = load_model(folder / "model")(images, torch.zeros(300, 10))
        posterior = Normal(mean.double(), (log_variance.double() / 2).exp())
        kl.append(kl_divergence(posterior, Normal(0, 1)).mean(dim=0).detach().numpy())
        codes.append(mean.detach())
    threshold = float(np.median(kl))
    expected = udr(codes, kl=kl, kl_threshold=threshold)
    options = ["--metrics", "udr", "--udr.kl_threshold", str(threshold)]
    assert evaluate.main([str(run), str(other), *SMALL, *options]) == 0
    entry = scores_of(run)["udr"]
    assert entry["protocol"]["kl"] == "of the posterior"
    assert np.sum(entry["details"]["informative_codes"]) == 10  # half of the 20
    np.testing.assert_array_equal(entry["details"]["informative_codes"], expected.informative_codes)
    np.testing.assert_allclose(entry["details"]["per_run"], expected.per_run, atol=1e-4)


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_fitted_encoders_are_compared_with_each_other(run, tiny_gan, tmp_path):
    other = tmp_path / "other"
    train.main([*tiny_gan, "--training.steps", "2", "--seed", "1", "--output", str(other)])
    options = [*FEW, "--encoder", "fit", "--metrics", "udr"]
    assert evaluate.main([str(run), str(other), *options]) == 0
    first, second = (scores_of(folder)["udr (fitted encoder)"] for folder in (run, other))
    assert first["protocol"]["kl"] == "unknown"
    assert first["details"] == second["details"]
    assert np.all(first["details"]["informative_codes"])


def test_generators_compute_in_full_precision(tiny_gan, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert train.main([*tiny_gan, "--training.steps", "1"]) == 0
    run = str(tmp_path / "run")
    assert evaluate.main([run, "--metrics", "activeness", "--activeness.latents", "1"]) == 0
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_a_generator_that_no_encoder_fits_fails_where_codes_are_wanted(run, monkeypatch, capsys):
    monkeypatch.setattr(
        "disentangle.models.EigenGAN.decode", lambda self, z: torch.full((len(z), 1, 32, 32), nan)
    )
    assert evaluate.main([str(run), *FEW, "--encoder", "fit", "--metrics", "mig"]) == 1
    printed = capsys.readouterr().out
    assert "could not be computed: decode must give finite images" in printed
    assert f"could not be computed: no encoder could be fitted to {run} (mig)" in printed


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_the_seed_reaches_the_metric_with_several_seeds(run):
    found = []
    for seed in ("0", "1"):
        names = ["--metrics", "variation_predictability", "--seed", seed]
        assert evaluate.main([str(run), *PAIRS, *names]) == 0
        found.append(scores_of(run)["variation_predictability"])
    assert [entry["protocol"]["seeds"] for entry in found] == [[0, 1, 2], [1, 2, 3]]
    first, second = (entry["details"]["scores"] for entry in found)
    assert first[1:] == second[:2]  # those of seeds 1 and 2


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_the_noise_is_not_among_the_latents_to_tell_apart(run):
    names, options = ["--metrics", "variation_predictability"], [*PAIRS, "--seed", "1"]
    assert evaluate.main([str(run), *options, *names]) == 0
    entry = scores_of(run)["variation_predictability"]
    assert entry["protocol"]["coordinates"] == list(range(8, 26))  # after 8 of noise
    assert entry["details"]["chance"] == 1 / 18
    options += ["--variation_predictability.coordinates", "[0, 9]"]
    assert evaluate.main([str(run), *options, *names]) == 0
    entry = scores_of(run)["variation_predictability"]
    assert entry["protocol"]["coordinates"] == [0, 9]


@pytest.mark.parametrize(
    ("directions", "coordinates"),
    [
        ([[0, 0, 1], [-1, 0, 0]], [2, 0]),
        ([[0, 0.6, 0.8], [1, 0, 0]], None),
        ([[0, 1, 0], [0, -1, 0]], None),
    ],
)
def test_which_axes_are_coordinates(directions, coordinates):
    axes = [Axis(f"{i}", "all", torch.tensor(row).float()) for i, row in enumerate(directions)]
    target = GeneratorTarget(
        "run",
        SimpleNamespace(axes=axes),
        None,
        draws=Draws(),
        processes=Processes(),
        device=torch.device("cpu"),
    )
    assert target.coordinates == coordinates


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
@pytest.mark.parametrize(
    ("change", "kept"),
    [(["--fit_encoder.steps", "4"], False), (["--seed", "5"], False), (["--points", "200"], True)],
)
def test_scores_by_another_encoder_are_not_kept(run, change, kept):
    options = [*FEW, "--encoder", "fit", "--metrics"]
    evaluate.main([str(run), *options, "mig,activeness"])
    evaluate.main([str(run), *options, "modularity", *change])
    scores = scores_of(run)
    assert ("mig (fitted encoder)" in scores) == kept
    assert set(scores) >= {"fit_encoder", "modularity (fitted encoder)", "activeness"}


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_scores_by_a_fitted_encoder_are_kept_where_none_is_fitted(run):
    evaluate.main([str(run), *FEW, "--encoder", "fit", "--metrics", "mig"])
    evaluate.main([str(run), *FEW, "--metrics", "activeness", "--seed", "5"])
    assert set(scores_of(run)) == {"fit_encoder", "mig (fitted encoder)", "activeness"}


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_what_was_computed_before_an_interruption_is_kept(run, monkeypatch):
    compute = Job._compute

    def interrupt(self, name, *arguments):
        if name == "sap":
            raise KeyboardInterrupt
        compute(self, name, *arguments)

    monkeypatch.setattr(Job, "_compute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main([str(run), *SMALL, "--metrics", "mig,sap"])
    assert list(scores_of(run)) == ["mig"]


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bins", "3"], "unrecognized arguments: --bins 3; did you mean"),
        (["--mig.bins", "few"], "mig.bins: expected int, got few"),
        (["--points", "0"], "points must be positive, got 0"),
        (["--activeness.latents", "0"], "activeness.latents must be positive, got 0"),
        (["--device", "abacus"], "--device 'abacus' cannot be used here"),
        (["--metrics", "mug"], "--metrics has no choice 'mug'; choose from: all, supervised,"),
        (["--metrics", "udr"], "udr of RUN needs two or more runs that differ in their seed only"),
        (["--metrics", "mig", "--mig.bins", "1"], "mig: bins must be at least 2, got 1"),
        (["--metrics", "irs", "--irs.quantile", "2"], "irs: quantile must be in (0, 1], got 2.0"),
        (["--factor_vae_score.batch_size", "1"], "factor_vae_score: batch_size must be at least 2"),
        (["--activeness.values", "[1]"], "activeness: the number of values must be at least 2"),
        (["--points", "19"], "mig: at least 20 points are needed, got 19"),
        (["--seed", "-1"], "seed must be between 0 and 2**32 - 1, got -1"),
        (["--encoder", "fit", "--fit_encoder.steps", "0"], "fit_encoder: steps must be at least 1"),
        (["--sefa", "--encoder", "fit"], "--encoder fit reads the model's own axes"),
        (["--sefa", "--metrics", "mig"], "goes with activeness and variation_predictability, not"),
        (["--sefa", "--metrics", "supervised"], "not with mig, sap, modularity, explicitness, irs"),
        (["--sefa_layer", "x"], "--sefa_layer requires --sefa"),
        (["--sefa_normalise"], "--sefa_normalise requires --sefa"),
        (["--sefa", "--sefa_layer", "x"], "no layer of kind Linear, ConvTranspose2d"),
        (["--output", "x"], "--output requires --codes"),
        (["--output", ""], "--output must name a folder, got ''"),
        (["--codes", "x.npz"], "give run folders, or --codes FILE, and not both"),
        (["--features.images", "1"], "features.images must be at least 2, got 1"),
        (
            ["--metrics", "perceptual_path_length", "--features.distance_path", "no/file"],
            "there are no weights at no/file",
        ),
    ],
)
def test_bad_options(run, complaint, monkeypatch, options, message):
    def never(*arguments):
        raise AssertionError("work has started")

    monkeypatch.setattr(ConvEncoder, "forward", never)
    monkeypatch.setattr("disentangle.models.SubspaceVAE.decode", never)
    assert message.replace("RUN", str(run)) in complaint(evaluate.main, [run, *options])
    assert not (run / "scores.json").exists()


def test_folders_that_are_no_runs(tmp_path, complaint):
    for folder, message in ((tmp_path, "is not a run folder"), (tmp_path / "x", "there is no run")):
        assert message in complaint(evaluate.main, [folder])


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_a_metric_that_fails_does_not_take_the_others_with_it(run, capsys, monkeypatch):
    def encode_nan(self, images):
        return torch.full((2, len(images), 10), torch.nan).unbind()

    monkeypatch.setattr(ConvEncoder, "forward", encode_nan)
    assert evaluate.main([str(run), *SMALL, "--metrics", "mig,activeness"]) == 1
    assert list(scores_of(run)) == ["activeness"]
    printed = capsys.readouterr().out
    assert "could not be computed: codes must be finite, got 3000 NaN" in printed


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("the Lasso did not converge\nframe #0"), "RuntimeError: the Lasso did not"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (OSError(28, "No space left"), "OSError: [Errno 28] No space left"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_any_error_is_that_of_one_metric(run, capsys, monkeypatch, error, reason):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setitem(METRICS, "mig", replace(METRICS["mig"], function=fail))
    monkeypatch.setattr("disentangle.evaluation.selection.check_options", lambda *arguments: None)
    assert evaluate.main([str(run), *SMALL, "--metrics", "mig,irs"]) == 1
    assert list(scores_of(run)) == ["irs"]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "could not be" in line)
    assert f"could not be computed: {reason}" in line
    assert line.endswith(" (mig)")


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_images_that_cannot_be_encoded_take_the_metrics_of_codes_only(run, capsys, monkeypatch):
    calls = []

    def fail(self, images):
        calls.append(len(images))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ConvEncoder, "forward", fail)
    assert evaluate.main([str(run), *SMALL, "--metrics", "mig,irs,activeness"]) == 1
    assert list(scores_of(run)) == ["activeness"]
    message = "could not be computed: OutOfMemoryError: CUDA out of memory (mig, irs)"
    assert message in capsys.readouterr().out
    assert len(calls) == 1  # not once more for each metric


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_an_encoder_whose_fit_breaks_is_a_failure(run, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("cuDNN error")

    monkeypatch.setattr("disentangle.evaluation.generator_target.fit_encoder", fail)
    options = [*FEW, "--encoder", "fit", "--metrics", "mig,activeness"]
    assert evaluate.main([str(run), *options]) == 1
    assert list(scores_of(run)) == ["activeness"]
    assert "could not be computed: RuntimeError: cuDNN error (fit_encoder)" in (
        capsys.readouterr().out
    )


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    factors = rng.integers(0, [3, 6], size=(400, 2))
    codes = factors + 0.1 * rng.normal(size=factors.shape)
    halves = {"codes": codes[:300], "factors": factors[:300]}
    return halves | {"test_codes": codes[300:], "test_factors": factors[300:]}


def test_codes_from_anywhere(arrays, tmp_path, capsys):
    file = tmp_path / "codes.npz"
    np.savez(file, **arrays, factor_names=np.array(["shape", "size"]))
    output = tmp_path / "scored"
    assert evaluate.main(["--codes", str(file), "--output", str(output)]) == 0
    scores = scores_of(output)
    expected = {n for n, m in METRICS.items() if m.quick and m.group.endswith("supervised")}
    assert set(scores) == expected - {"factor_vae_score", "udr", "histogram_dci"} | {"dci"}
    assert scores["mig"]["score"] == mig(arrays["codes"], arrays["factors"]).score
    assert scores["dci"]["score"] > 0.8
    assert (output / "plots" / "dci-importance.png").is_file()
    printed = capsys.readouterr().out
    assert "factor_vae_score" in printed
    assert (
        "not computed: dci takes its place below 1,000 training points (histogram_dci)" in printed
    )


def test_codes_without_a_test_split(arrays, tmp_path, capsys, complaint):
    file = tmp_path / "codes.npz"
    np.savez(file, codes=arrays["codes"], factors=arrays["factors"])
    assert evaluate.main(["--codes", str(file), "--format", "markdown"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("| metric | score | seconds | protocol |\n|---|---:|")
    assert "the arrays test_codes and test_factors (sap, explicitness, histogram" in captured.err
    assert "dci takes its place" not in captured.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["codes.npz"]
    message = complaint(evaluate.main, ["--codes", file, "--metrics", "sap"])
    assert "sap of" in message
    assert "needs the arrays test_codes and test_factors" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": None}, "lacks factors; it must hold the arrays codes, factors and optionally"),
        ({"labels": np.zeros(3)}, "has an unknown array labels"),
        ({"test_codes": None}, "must hold both test_codes and test_factors or neither"),
        ({"codes": np.zeros((7, 2))}, "got 7 codes and 300 factors"),
        ({"codes": np.full((300, 2), np.nan)}, "codes must be finite, got 600 NaN"),
        ({"factors": np.zeros((300, 2))}, "factors must be integers, got float64"),
        ({"test_codes": np.zeros((100, 3))}, "the test split: training and test codes must have"),
        ({"factor_names": np.array(["one"])}, "factor_names must be 2 strings, got <U3"),
        ({"codes": np.array([object()] * 300)}, "plain arrays: codes must hold plain values"),
        ({"codes": np.zeros(300, dtype=[("a", float)])}, "codes must be real numbers, got [('a'"),
        ({"factors": np.full((300, 2), 2**63, np.uint64)}, "factors must fit into int64, got 9223"),
        ({"test_codes": np.full((100, 2), 2**60)}, "the test split: codes must be at most 2^53"),
    ],
)
def test_bad_files_of_codes(arrays, tmp_path, complaint, change, message):
    file = tmp_path / "codes.npz"
    np.savez(file, **{key: value for key, value in (arrays | change).items() if value is not None})
    assert message in complaint(evaluate.main, ["--codes", file])


def test_few_points_are_scored_by_the_exact_dci(arrays, tmp_path, complaint):
    file, output = tmp_path / "codes.npz", tmp_path / "scored"
    np.savez(file, **arrays)
    options = ["--metrics", "histogram_dci", "--output", str(output)]
    assert evaluate.main(["--codes", str(file), *options]) == 0
    scores = scores_of(output)
    assert list(scores) == ["dci"]
    assert scores["dci"]["score"] == dci(*arrays.values()).score
    message = complaint(evaluate.main, ["--codes", file, *options, "--histogram_dci.bins", "32"])
    assert "options of histogram_dci need 1,000 training points, below which dci takes" in message


def test_points_of_a_file_are_drawn_when_asked(arrays, tmp_path, complaint):
    file, output = tmp_path / "codes.npz", tmp_path / "scored"
    np.savez(file, **arrays)
    command = ["--codes", str(file), "--output", str(output), "--metrics", "irs,sap"]
    scored = []
    drawn = ["--points", "200", "--test_points", "50"]
    for options in ([], drawn, [*drawn, "--seed", "1"]):
        assert evaluate.main([*command, *options]) == 0
        scored.append(scores_of(output))
    everything, some, others = scored
    assert everything["irs"]["protocol"]["points"] == 300
    assert "drawn_from" not in everything["irs"]["protocol"]
    for entry in (some["irs"], some["sap"]):
        assert (entry["protocol"]["points"], entry["protocol"]["drawn_from"]) == (200, 300)
    assert some["sap"]["protocol"]["test_points"] == 50
    assert len({scores["irs"]["score"] for scores in (everything, some, others)}) == 3
    assert "--points must be from 1 to 300, all that there are, got 301" in complaint(
        evaluate.main, [*command, "--points", "301"]
    )
    np.savez(file, codes=arrays["codes"], factors=arrays["factors"])
    assert "--test_points needs the arrays test_codes and test_factors" in complaint(
        evaluate.main, ["--codes", file, "--test_points", "50"]
    )


def test_drawn_rows_stay_together(arrays):
    codes = np.arange(300)[:, None] + np.array([0.0, 0.5])
    points = Points(codes, codes[:, :1].astype(int), None, None, ("a", "b"), ("a",))
    drawn = draw_points(points, 40, None, seed=0)
    np.testing.assert_array_equal(drawn.codes[:, 0], drawn.factors[:, 0])
    assert len(np.unique(drawn.factors)) == 40
    assert (np.diff(drawn.factors[:, 0]) > 0).all()


def test_many_codes(tmp_path, capsys):
    """Matrices of all pairs are not written number by number, nor all rows drawn."""
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 2, size=(40, 2))
    np.savez(tmp_path / "codes.npz", codes=rng.normal(size=(40, 1_030)), factors=factors)
    options = ["--codes", str(tmp_path / "codes.npz"), "--output", str(tmp_path / "scored")]
    names = "mig,mutual_information_score,gaussian_total_correlation"
    assert evaluate.main([*options, "--metrics", names]) == 1
    printed = capsys.readouterr().out
    assert "got 40 points of 1030 codes: score more points or fewer codes" in printed
    assert "too large to be stored: mutual_information (mutual_information_score)" in printed
    assert "not drawn, as there are more than 300 codes (mig)" in printed
    entry = scores_of(tmp_path / "scored")["mutual_information_score"]
    assert entry["too_large"] == {"mutual_information": [1_030, 1_030]}
    assert entry["details"] == {}
    assert not (tmp_path / "scored" / "plots").exists()


def test_a_number_that_is_nan_is_a_failure(arrays, tmp_path, capsys, monkeypatch):
    module = sys.modules["disentangle.metrics.mig"]  # the function has the module's name
    monkeypatch.setattr(module, "mutual_information", lambda x, y: np.full((2, 2), nan))
    np.savez(tmp_path / "codes.npz", **arrays)
    assert evaluate.main(["--codes", str(tmp_path / "codes.npz"), "--metrics", "mig,irs"]) == 1
    message = "could not be computed: FloatingPointError: score of MigResult must be a number"
    assert message in capsys.readouterr().out


def test_output_that_cannot_be_written(arrays, tmp_path, complaint, monkeypatch):
    file = tmp_path / "codes.npz"
    np.savez(file, **arrays)
    for output in (file, file / "within"):
        message = complaint(evaluate.main, ["--codes", file, "--output", output])
        assert f"{file} is not a writable folder" in message
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "is not a writable folder" in complaint(
        evaluate.main, ["--codes", file, "--output", tmp_path / "new"]
    )


def test_output_that_holds_a_run(arrays, tmp_path, complaint):
    np.savez(tmp_path / "codes.npz", **arrays)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("task: vae")
    (run / "scores.json").write_text("of the run")
    message = complaint(evaluate.main, ["--codes", tmp_path / "codes.npz", "--output", run])
    assert f"--output {run} holds a run: choose another folder" in message
    assert (run / "scores.json").read_text() == "of the run"


def test_output_that_holds_scores_of_other_codes(arrays, tmp_path, complaint):
    file, other, output = (tmp_path / name for name in ("a.npz", "b.npz", "scored"))
    np.savez(file, **arrays)
    np.savez(other, **(arrays | {"codes": arrays["codes"] + 1}))
    options = ["--output", str(output), "--metrics", "mig"]
    assert evaluate.main(["--codes", str(file), *options]) == 0
    before = (output / "scores.json").read_text()
    message = complaint(evaluate.main, ["--codes", other, *options])
    assert f"{output} holds scores of {file}: choose another folder, or remove" in message
    other.replace(file)
    message = complaint(evaluate.main, ["--codes", file, *options])
    assert f"{output} holds scores of what was in {file} before" in message
    assert (output / "scores.json").read_text() == before
    report = json.loads(before)
    del report["codes"]
    (output / "scores.json").write_text(json.dumps(report))
    message = complaint(evaluate.main, ["--codes", file, *options])
    assert f"{output} holds scores of something else" in message


def test_scores_of_the_same_codes_are_kept(arrays, tmp_path):
    file, output = tmp_path / "codes.npz", tmp_path / "scored"
    np.savez(file, **arrays)
    for names in ("mig,irs", "sap"):
        options = ["--output", str(output), "--metrics", names]
        assert evaluate.main(["--codes", str(file), *options]) == 0
    assert list(scores_of(output)) == ["mig", "irs", "sap"]


def test_long_names_of_factors_do_not_overlap(arrays, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (drawn.append(f), save(f, *a, **k)))
    codes, factors = (np.tile(arrays[key], 3) for key in ("codes", "factors"))  # 6 columns
    names = np.array(["colour of the background wall", "orientation"] * 3)
    np.savez(tmp_path / "codes.npz", codes=codes, factors=factors, factor_names=names)
    options = ["--codes", str(tmp_path / "codes.npz"), "--output", str(tmp_path / "scored")]
    evaluate.main([*options, "--metrics", "mig"])
    labels = [label.get_window_extent() for label in drawn[0].axes[0].get_xticklabels()]
    assert len(labels) == 6
    assert all(left.x1 < right.x0 for left, right in pairwise(labels))
    assert all(label.y0 >= 0 for label in labels)  # none is cut off


def test_files_that_hold_no_codes(tmp_path, complaint):
    assert "there is no file of codes" in complaint(
        evaluate.main, ["--codes", tmp_path / "codes.npz"]
    )
    for name, content in (("a.npz", b"text"), ("b.npz", b"")):
        (tmp_path / name).write_bytes(content)
        message = complaint(evaluate.main, ["--codes", tmp_path / name])
        assert "is not an .npz file of plain arrays" in message
    np.save(tmp_path / "c.npy", np.zeros(3))
    assert "File is not a zip file" in complaint(evaluate.main, ["--codes", tmp_path / "c.npy"])


def test_the_same_metric_by_names_and_groups():
    assert choose_metrics("all") == (list(METRICS), False)
    assert choose_metrics(" mig , unsupervised")[0][:2] == ["mig", "gaussian_total_correlation"]
    quick, _ = choose_metrics(None)
    assert "dci" not in quick
    assert "frechet_inception_distance" not in quick


def test_every_metric_is_in_the_registry():
    import disentangle.metrics as package

    results = [name for name in package.__all__ if name.endswith("Result")]
    assert len(METRICS) == len(results) + 1  # `dci` and `histogram_dci` have one
    assert udr is METRICS["udr"].function


def test_the_exact_dci_shows_its_trees(arrays, tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr(
        "disentangle.evaluation.progress.tqdm",
        lambda **options: bars.append(Bar(options)) or bars[-1],
    )
    np.savez(tmp_path / "codes.npz", **arrays)
    assert evaluate.main(["--codes", str(tmp_path / "codes.npz"), "--metrics", "mig,dci"]) == 0
    (bar,) = bars  # MIG needs none
    assert bar.options["desc"] == "dci"
    assert bar.options["disable"] is None  # unless it is no terminal
    assert bar.options["unit"] == "tree"
    assert bar.n == bar.options["total"] == 900  # 100 for each of 3 + 6 values
    assert bar.closed


def test_epochs_and_images_have_a_bar_each(monkeypatch):
    bars = []
    monkeypatch.setattr(
        "disentangle.evaluation.progress.tqdm",
        lambda **options: bars.append(Bar(options)) or bars[-1],
    )
    progress = Progress(shown=True)
    with progress.show("vp", images=8):
        progress.advance(8)
        progress.follow(1, 4, unit="epoch")
        progress.follow(3, 4, unit="epoch")
    assert [(bar.options["unit"], bar.n, bar.options["total"]) for bar in bars] == [
        ("image", 8, 8),
        ("epoch", 3, 4),
    ]
    assert all(bar.closed for bar in bars)
    progress.advance(1)  # there is no bar any more


class Bar:
    """In place of tqdm's, which shows nothing but on a terminal."""

    def __init__(self, options):
        self.options, self.n, self.closed = options, 0, False

    def update(self, count):
        self.n += count

    def close(self):
        self.closed = True


def fail_in_one(index, folder):
    """What each of two processes is told of errors in one of them."""
    os.environ |= {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "MASTER_ADDR": "127.0.0.1"}
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=index, world_size=2
    )
    processes, found = Processes(), []

    def fail(error, *, where, value=None):
        if processes.index == where:
            raise error
        return value

    def compute(error, where):
        """Fails in one process outside of what is shared, when the other waits for its rows."""
        fail(error, where=where)
        return processes.map(torch.neg, torch.arange(4), chunk=2)

    for work in (
        lambda: processes.on_first(lambda: fail(ValueError("bad"), where=0)),
        lambda: processes.map(lambda x: fail(OSError("gone"), where=1, value=x), CHUNKS, chunk=1),
        lambda: processes.together(lambda: compute(MemoryError(), 1)),
        lambda: processes.together(lambda: compute(KeyError("x"), 0)),
        lambda: processes.together(lambda: compute(None, None)).tolist(),
        lambda: processes.on_first(lambda: processes.index),
    ):
        try:
            found.append(work())
        except SharedError as error:
            found.append(str(error))
    (folder / f"{index}.json").write_text(json.dumps([processes.count, *found]))
    distributed.destroy_process_group()


def test_an_error_in_one_process_is_raised_by_all(tmp_path):
    multiprocessing.spawn(fail_in_one, (tmp_path,), nprocs=2)
    expected = [2, "bad", "OSError: gone", "MemoryError", "KeyError: 'x'", [0, -1, -2, -3], 0]
    assert [json.loads((tmp_path / f"{i}.json").read_text()) for i in (0, 1)] == [expected] * 2


@pytest.mark.parametrize("share", [Processes.on_first, Processes.together])
def test_the_error_of_a_single_process_is_its_own(share):
    def fail():
        raise KeyError("bad")

    with pytest.raises(KeyError, match="bad"):
        share(Processes(), fail)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "2 processes were started, but "),
        (
            {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "ACCELERATE_USE_CPU": "true"},
            "2 processes were started, but cannot join",
        ),
    ],
)
def test_processes_that_cannot_join(monkeypatch, complaint, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert message in complaint(evaluate.main, ["run"])


def test_only_the_first_process_of_a_machine_complains(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit):
        evaluate.main(["run"])
    assert capsys.readouterr().err == ""


def test_rows_are_mapped_in_chunks():
    seen = []

    def double(rows):
        seen.append(len(rows))
        return 2 * rows

    rows = torch.arange(10).view(5, 2)
    assert torch.equal(Processes().map(double, rows, chunk=2), 2 * rows)
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
@pytest.mark.slow
def test_two_processes_score_as_one(run):
    """The same numbers to the last bit, printed and written once."""
    names = "mig,sap,factor_vae_score,activeness,frechet_inception_distance,perceptual_path_length"
    names += ",variation_predictability"
    arguments = [str(run), *FEW, *FEATURES, *PATHS, *PAIRS, "--metrics", names]
    alone = [sys.executable, "-m", "disentangle.evaluate", *arguments]
    together = on_two_processes("disentangle.evaluate", *arguments)
    found, printed = [], []
    for command in (alone, together):
        process = subprocess.run(command, check=True, env=ON_CPU, capture_output=True, text=True)
        lines = [line.split()[0] for line in process.stdout.splitlines() if line]
        printed.append([word for word in lines if word != "[Gloo]"])  # of older versions of torch
        found.append({name: (s["score"], s["details"]) for name, s in scores_of(run).items()})
        (run / "scores.json").unlink()
    assert set(found[0]) == set(names.split(","))
    assert found[0] == found[1]
    assert printed[0] == printed[1]
