import json
import sys

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from disentangle import plot_activeness
from disentangle.plot_activeness import main
from disentangle.runs.metrics_log import activeness_name


def write_run(folder, values, *, orthogonality=(), seed=0):
    """A run folder with `values[step][subspace]`."""
    folder.mkdir(parents=True)
    config = {"task": "gan", "model": {}, "data": {}, "output": str(folder), "seed": seed}
    text = yaml.safe_dump(config | {"orthogonality": list(orthogonality)})
    (folder / "config.yaml").write_text(text)
    with (folder / "metrics.jsonl").open("w") as file:
        for step, subspaces in values.items():
            measured = {activeness_name(name): value for name, value in subspaces.items()}
            file.write(json.dumps({"step": step, "loss/generator": 1.0, **measured}) + "\n")
    return folder


def make_values(scale=1.0):
    """Two subspaces at three steps, between which there is a line without a measurement."""
    values = {step: {"block 0": scale * step, "block 1": 2 * scale} for step in (10, 20, 30)}
    return {5: {}, **values}


@pytest.fixture
def drawn(monkeypatch):
    """The arguments that the figure would be drawn with."""
    seen = {}

    def spy(panels, **labels):
        seen.update(labels, panels=panels)
        return Figure(figsize=(5, 5))

    monkeypatch.setattr("disentangle.output.figures.draw_curves", spy)
    return seen


def test_one_run_is_drawn_into_its_folder(tmp_path, capsys, complaint):
    run = write_run(tmp_path / "run", make_values())
    file = run / "plots" / "activeness.png"
    assert main([str(run)]) == 0
    assert capsys.readouterr() == (f"figure: {file}\n", "")
    with Image.open(file) as picture:
        assert min(picture.size) > 400
    assert f"{file} exists: add --overwrite" in complaint(main, [run])
    assert main([str(run), "--overwrite"]) == 0


def test_a_line_for_each_subspace_on_a_logarithmic_axis(tmp_path, drawn):
    run = write_run(tmp_path / "run", make_values(), orthogonality=["nog"])
    assert main([str(run)]) == 0
    assert drawn["logarithmic"]
    assert (drawn["x_label"], drawn["y_label"][:10]) == ("optimizer step", "activeness")
    (panel,) = drawn["panels"].items()
    assert panel[0] == "NOG"
    assert [curve.label for curve in panel[1]] == ["block 0", "block 1"]
    assert panel[1][0].steps.tolist() == [10, 20, 30]
    np.testing.assert_allclose(panel[1][0].middle, [10, 20, 30])
    np.testing.assert_allclose(panel[1][1].middle, [2, 2, 2])


def test_a_panel_for_each_experiment_and_a_band_for_seeds(tmp_path, drawn):
    runs = [
        write_run(tmp_path / str(seed), make_values(scale), orthogonality=["nog"], seed=seed)
        for seed, scale in enumerate([1.0, 4.0])
    ]
    runs.append(write_run(tmp_path / "plain", make_values(3.0)))
    assert main([*map(str, runs), str(runs[0]), "--output", str(tmp_path / "figure.png")]) == 0
    assert list(drawn["panels"]) == ["NOG (mean, range of 2)", "no technique"]
    seeds, plain = (panel[0] for panel in drawn["panels"].values())
    np.testing.assert_allclose(seeds.middle, [20, 40, 60])
    np.testing.assert_allclose(seeds.highest, [40, 80, 120])
    np.testing.assert_allclose(plain.middle, [30, 60, 90])


def test_a_subspace_without_any_effect_leaves_gaps(tmp_path, drawn, capsys):
    values = make_values()
    values[20]["block 1"] = 0.0
    values[30]["block 1"] = None
    assert main([str(write_run(tmp_path / "run", values))]) == 0
    assert capsys.readouterr().err == "2 of 6 points are 0 and leave gaps\n"
    (panel,) = drawn["panels"].values()
    np.testing.assert_allclose(panel[1].middle, [2, np.nan, np.nan])


def test_bad_input_gets_one_line(tmp_path, complaint):
    run = write_run(tmp_path / "run", make_values())
    dead = write_run(tmp_path / "dead", {10: {"block 0": 0.0}})
    unwatched = write_run(tmp_path / "unwatched", {10: {}})
    untrained = write_run(tmp_path / "untrained", {10: {}})
    (untrained / "metrics.jsonl").unlink()
    cases = [
        (["/no/such/run"], "there is no run folder /no/such/run"),
        ([run, tmp_path], "is not a run folder"),
        ([unwatched], "has no records of activeness (training.activeness_every, by default"),
        ([untrained], "has no metrics.jsonl: it has not been trained"),
        ([dead], "no subspace changed the image at any step"),
        ([run, dead], "--output FILE is needed to draw 2 runs together"),
        ([run, "--output", tmp_path / "x.bmp"], "the file must end in .png or .pdf or .svg"),
        ([run, "--layers", "a"], "unrecognized arguments: --layers"),
    ]
    for arguments, message in cases:
        assert message in complaint(main, arguments), arguments
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.usefixtures("drawn")
def test_the_command_is_known(monkeypatch, tmp_path, capsys):
    from disentangle.__main__ import main as console

    run = write_run(tmp_path / "run", make_values())
    monkeypatch.setattr(sys, "argv", ["disentangle", plot_activeness.COMMAND, str(run)])
    with pytest.raises(SystemExit) as exited:
        console()
    assert exited.value.code == 0
    assert "figure: " in capsys.readouterr().out
