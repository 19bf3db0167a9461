import json
import sys

import matplotlib
import numpy as np
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from disentangle import plot_conditioning, train
from disentangle.config.parse import parse_run
from disentangle.curves import group_runs, merge_runs
from disentangle.orthogonality.conditioning import MEASURES, MEASURES_OF, measure_name
from disentangle.output.figures import COLUMNS, Curve, draw_bars, draw_curves, encode_figure
from disentangle.plot_conditioning import main
from disentangle.runs.run import Run

LAYERS = ["a.U", "b.U"]


def write_run(folder, values, *, orthogonality=(), seed=0, quantity="weight", without=(), **config):
    """A run folder with `values[step][layer]` as every measure of a quantity."""
    folder.mkdir(parents=True)
    config |= {"task": "vae", "model": {}, "data": {}, "output": str(folder), "seed": seed}
    text = yaml.safe_dump(config | {"orthogonality": list(orthogonality)})
    (folder / "config.yaml").write_text(text)
    with (folder / "metrics.jsonl").open("w") as file:
        for step, layers in values.items():
            measures = {
                measure_name(layer, quantity, measure): value
                for layer, value in layers.items()
                for measure in MEASURES_OF[quantity]
                if measure not in without
            }
            file.write(json.dumps({"step": step, "loss": 1.0, **measures}) + "\n")
    return folder


def make_values(scale=1.0, layers=LAYERS):
    return {step: dict.fromkeys(layers, scale * step) for step in (10, 20, 30)}


@pytest.fixture
def drawn(monkeypatch):
    """The arguments that the figure would be drawn with."""
    seen = {}

    def spy(panels, **labels):
        seen.update(labels, panels=panels)
        return Figure(figsize=(5, 5))

    monkeypatch.setattr("disentangle.output.figures.draw_curves", spy)
    return seen


# Whole runs


def test_runs_as_they_are_trained(tiny_vae, tmp_path, drawn, capsys, complaint):
    for name, techniques in (("plain", "[]"), ("treated", "[olr, nog]")):
        options = [*tiny_vae, "--output", str(tmp_path / name), "--orthogonality", techniques]
        assert train.main([*options, "--training.steps", "4"]) == 0
    runs = [str(tmp_path / "plain"), str(tmp_path / "treated")]
    capsys.readouterr()
    assert main([*runs, "--output", str(tmp_path / "figure.png")]) == 0
    printed, errors = capsys.readouterr()
    assert printed.startswith(f"figure: {tmp_path / 'figure.png'}\n")
    assert "effective_rank" in printed
    assert not errors
    assert list(drawn["panels"]) == ["decoder.subspaces.0.U"]
    curves = drawn["panels"]["decoder.subspaces.0.U"]
    assert [curve.label for curve in curves] == ["no technique", "NOG + OLR"]
    for curve in curves:
        assert curve.steps.tolist() == [2, 4]
        assert (curve.middle >= 1).all()
    # Of eight images and ten codes, the gradient has rank eight.
    message = complaint(main, [*runs, "--quantity", "gradient", "--output", tmp_path / "g.png"])
    assert "no condition of the gradient is finite: try another --measure" in message
    more = ["--quantity", "gradient", "--measure", "nonnull_condition"]
    assert main([*runs, *more, "--output", str(tmp_path / "g.png")]) == 0


def test_one_run_is_drawn_into_its_folder(tmp_path, capsys, complaint):
    run = write_run(tmp_path / "run", make_values(layers=["a.U"]))
    assert main([str(run)]) == 0
    file = run / "plots" / "weight-condition.png"
    assert capsys.readouterr().out.startswith(f"figure: {file}\n")
    before = file.read_bytes()
    file.write_bytes(b"mine")
    assert f"{file} exists: add --overwrite" in complaint(main, [run])
    assert file.read_bytes() == b"mine"
    assert main([str(run), "--overwrite"]) == 0
    assert file.read_bytes() == before
    with Image.open(file) as picture:
        assert min(picture.size) > 400
    assert main([str(run), "--measure", "effective_rank"]) == 0
    assert len(list((run / "plots").iterdir())) == 2


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?")])
def test_the_ending_says_what_is_written(tmp_path, kind, start):
    run = write_run(tmp_path / "run", make_values(layers=["a.U"]))
    file = tmp_path / f"figure.{kind}"
    assert main([str(run), "--output", str(file)]) == 0
    assert file.read_bytes().startswith(start)


def test_layers_can_be_chosen(tmp_path, drawn):
    run = write_run(tmp_path / "run", make_values(layers=["a.U", "b.U", "c.U"]))
    assert main([str(run)]) == 0
    assert list(drawn["panels"]) == ["a.U", "b.U", "c.U"]
    assert main([str(run), "--overwrite", "--layers", "c.U", "a.U"]) == 0
    assert list(drawn["panels"]) == ["c.U", "a.U"]


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_has_its_labels(tmp_path, drawn, measure, capsys):
    run = write_run(tmp_path / "run", make_values(layers=["bn1"]), quantity="covariance")
    options = ["--task", "classification", "--data.name", "digits", "--model.name", "resnet"]
    options += ["--model.depth", "10", "--model.meta_layer", "decorrelated_batch_norm"]
    config, _ = parse_run([*options, "--model.meta_eps", "0.25", "--output", str(run)])
    (run / "config.yaml").write_text(config.dump())
    assert main([str(run), "--quantity", "covariance", "--measure", measure]) == 0
    assert drawn["x_label"] == "optimizer step"
    assert drawn["y_label"].endswith("of the covariance")
    layer, step, *values, eps = capsys.readouterr().out.split()[-3 - len(MEASURES) :]
    assert values == ["30.0000"] * len(MEASURES)
    assert (layer, step, eps) == ("bn1", "30", "0.2500")
    assert drawn["logarithmic"] == (measure != "effective_rank")


def test_a_log_of_an_earlier_version_lacks_some_measures(tmp_path, drawn, capsys, complaint):
    run = write_run(tmp_path / "run", make_values(), without=("norm",))
    message = complaint(main, [run, "--measure", "norm"])
    assert f"{run} has no records of the norm of the weight: it was trained by a version" in message
    message = complaint(main, [run, "--measure", "normalised_condition"])
    assert "the weight has no normalised_condition; choose --measure from condition, non" in message
    assert main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert " norm" in printed
    assert "normalised_condition" not in printed
    assert printed.count("30.0000") == 2 * (len(MEASURES_OF["weight"]) - 1)


def test_points_that_are_not_finite_leave_gaps(tmp_path, drawn, capsys):
    values = make_values(layers=["a.U"])
    values[20]["a.U"] = None
    assert main([str(write_run(tmp_path / "run", values))]) == 0
    middle = drawn["panels"]["a.U"][0].middle
    np.testing.assert_allclose(middle, [10, np.nan, 30])
    assert capsys.readouterr().err.startswith("1 of 3 points are not finite and leave gaps")


def test_a_run_in_progress(tmp_path, drawn):
    run = write_run(tmp_path / "run", make_values(layers=["a.U"]))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "conditio')
    assert main([str(run)]) == 0
    assert drawn["panels"]["a.U"][0].steps.tolist() == [10, 20, 30]


def test_a_measure_that_was_not_recorded_is_left_empty(tmp_path, drawn, capsys):
    run = write_run(tmp_path / "run", {})
    (run / "metrics.jsonl").write_text('{"step": 1, "conditioning/a.U/weight/condition": 2.0}\n')
    assert main([str(run)]) == 0
    assert drawn["panels"]["a.U"][0].middle.tolist() == [2.0]
    assert capsys.readouterr().out.splitlines()[-1].split()[1:] == ["a.U", "1", "2.0000"]


# Lines


def test_seeds_become_one_line_with_a_band(tmp_path, drawn):
    runs = [
        write_run(tmp_path / str(seed), make_values(scale), orthogonality=["nog"], seed=seed)
        for seed, scale in enumerate([1.0, 4.0, 16.0])
    ]
    runs.append(write_run(tmp_path / "plain", make_values(2.0)))
    assert main([*map(str, runs), "--output", str(tmp_path / "figure.png")]) == 0
    seeds, plain = drawn["panels"]["b.U"]
    assert seeds.label == "NOG (mean, range of 3)"
    np.testing.assert_allclose(seeds.middle, [40, 80, 120])  # the geometric mean
    np.testing.assert_allclose(seeds.lowest, [10, 20, 30])
    np.testing.assert_allclose(seeds.highest, [160, 320, 480])
    assert plain.label == "no technique"
    np.testing.assert_allclose(plain.middle, [20, 40, 60])
    np.testing.assert_allclose(plain.lowest, plain.highest)


def test_experiments_with_the_same_techniques_are_told_apart_by_what_differs(tmp_path):
    folders = [
        write_run(tmp_path / name, make_values(), orthogonality=techniques, optimizer={"lr": lr})
        for name, techniques, lr in [
            ("slow", ["nog"], 1e-4),
            ("fast", ["nog"], 1e-3),
            ("other", ["ow", "nog"], 1e-3),
        ]
    ]
    groups = group_runs(map(Run, folders))
    expected = ["NOG, optimizer.lr 0.0001", "NOG, optimizer.lr 0.001", "OW + NOG"]
    assert list(groups) == expected
    assert [group[0].folder.path for group in groups.values()] == folders


def test_a_run_that_is_named_twice_is_one(tmp_path, drawn):
    run = write_run(tmp_path / "run", make_values())
    assert main([str(run), f"{run}/"]) == 0
    assert [curve.label for curve in drawn["panels"]["a.U"]] == ["no technique"]


def test_an_effective_rank_has_the_arithmetic_mean():
    curve = merge_runs("x", [{1: 2.0}, {1: 4.0, 3: 5.0}], logarithmic=False)
    assert curve.steps.tolist() == [1, 3]
    assert curve.middle.tolist() == [3, 5]
    assert curve.lowest.tolist() == [2, 5]


def test_what_a_logarithm_cannot_show_is_left_out():
    curve = merge_runs("x", [{1: 0.0, 2: 2.0}, {1: 4.0, 2: 8.0}], logarithmic=True)
    assert curve.middle.tolist() == pytest.approx([4, 4])
    assert merge_runs("x", [{1: 0.0}], logarithmic=False).middle.tolist() == [0]


# Pictures


def make_curve(label="NOG", middle=(1.0, 2.0, 3.0), band=0.0):
    middle = np.array(middle)
    steps = 100_000 * np.arange(1, len(middle) + 1)
    return Curve(label, steps, middle, middle - band, middle + band)


def draw(panels, *, logarithmic=True):
    figure = draw_curves(panels, x_label="x", y_label="y\nz", logarithmic=logarithmic)
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "label",
    ["OW + NOG + OLR", "NOG: " + r"a/long/path/to/$\q$ run" * 5, "a/long/path" * 10_000],
    ids=["short", "long", "absurd"],
)
def test_nothing_is_clipped_or_hidden(count, label):
    curves = [make_curve(f"{label} {i}", [i + 1, 2000 * i + 2, 3.0], i / 2) for i in range(6)]
    figure = draw({f"layer{i}.downsample.0.U": curves for i in range(count)})
    renderer = figure.canvas.get_renderer()
    whole = figure.bbox
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == count
    boxes = [axes.get_tightbbox(renderer) for axes in panels]
    legend = figure.legends[0].get_window_extent(renderer)
    below = figure._supxlabel.get_window_extent(renderer)
    beside = figure._supylabel.get_window_extent(renderer)
    shown = [text.get_text().replace("\\$", "$") for text in figure.legends[0].get_texts()]
    for i, text in enumerate(shown):
        start, _, end = "".join(text.split()).partition("…")
        whole_label = "".join(f"{label} {i}".split())
        assert whole_label.startswith(start)
        assert whole_label.endswith(end)
        assert end or len(label) < 1000
    for box in [*boxes, legend, below, beside]:
        assert box.x0 >= whole.x0 - 1
        assert box.y0 >= whole.y0 - 1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1
    everything = [*boxes, legend, below, beside]
    for i, one in enumerate(everything):
        for other in everything[i + 1 :]:
            assert min(one.x1, other.x1) - max(one.x0, other.x0) < 1 or (
                min(one.y1, other.y1) - max(one.y0, other.y0) < 1
            )
    # The lowest panel of each column shows the steps.
    for axes in panels[-min(count, COLUMNS) :]:
        assert axes.get_xticklabels()[0].get_visible()


def test_the_size_of_a_figure():
    def measure(label, count=1, entries=6):
        curves = [make_curve(f"{label} {i}") for i in range(entries)]
        panels = {f"layer{i}": curves for i in range(count)}
        figure = draw_curves(panels, x_label="x", y_label="y", logarithmic=True)
        return figure.get_size_inches().tolist()

    assert measure("OW + NOG + OLR") == pytest.approx([5.5, 3.2 + 3 * 0.21])
    assert measure("OW + NOG + OLR", 5) == pytest.approx([10.8, 6.0 + 2 * 0.21])
    assert measure("no technique, optimizer.lr 0.0001") == pytest.approx(
        [7.35, 3.2 + 3 * 0.21], 0.01
    )
    for label in (300 * "d", 100_000 * "d"):
        width, height = measure(label)
        assert width < 12
        assert height < 7
    titles = {50 * f"title {i} ": [make_curve()] for i in range(2)}
    figure = draw(titles)
    assert figure.axes[0].get_position().height * figure.get_size_inches()[1] > 2


@pytest.mark.parametrize("place", range(34, 42))
def test_no_line_is_broken_before_a_dollar_that_is_escaped(place):
    title = place * "x" + "$" + (place - 1) * "^" + "$"
    figure = draw({title: [make_curve(title)]})
    for text in (figure.axes[0].title, *figure.legends[0].get_texts()):
        assert "".join(text.get_text().split()) == title.replace("$", r"\$")
        assert not any(line.endswith("\\") for line in text.get_text().splitlines())


def test_lines_of_one_label_look_alike_and_others_differ():
    many = [make_curve(str(i)) for i in range(20)]
    figure = draw({"a": many, "b": many[3:5]})
    looks = [[(line.get_color(), line.get_linestyle()) for line in a.lines] for a in figure.axes]
    lines = [pair for pair in looks[0] if pair[1] != "None"]
    dashes = [line._dash_pattern for line in figure.axes[0].lines[::2]]
    assert len({(color, str(dash)) for (color, _), dash in zip(lines, dashes, strict=True)}) == 20
    assert looks[1] == looks[0][6:10]


def test_looks_can_be_the_same_in_several_figures():
    options = {"x_label": "x", "y_label": "y", "logarithmic": True, "order": ["a", "b"]}
    colours = [
        {
            text.get_text(): line.get_color()
            for figure in [draw_curves({"p": [make_curve(label) for label in labels]}, **options)]
            for text, line in zip(
                figure.legends[0].get_texts(), figure.legends[0].get_lines(), strict=True
            )
        }
        for labels in ("ab", "b", "cb")
    ]
    assert [sorted(found) for found in colours] == [["a", "b"], ["b"], ["b", "c"]]
    assert len({found["b"] for found in colours}) == 1
    assert colours[2]["c"] not in colours[0].values()


def test_a_point_between_gaps_is_a_dot():
    curve = make_curve(middle=[1.0, np.nan, 2.0, np.nan, 3.0, 4.0])
    line, dots = draw({"a": [curve]}).axes[0].lines
    assert dots.get_xdata().tolist() == [100_000, 300_000]
    assert dots.get_color() == line.get_color()


def test_noise_is_not_magnified():
    figure = draw({"a": [make_curve(middle=[1.0, 1.0001, 1.0])]})
    low, high = figure.axes[0].get_ylim()
    assert low < 1 < high
    assert high / low == pytest.approx(3)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels(which="both")]
    assert {"1", "2"} <= set(labels)


def test_an_axis_ends_where_no_value_can_be():
    curves = {"a": [make_curve(middle=[1.0, 1.2, 1.1])]}
    figure = draw_curves(curves, x_label="x", y_label="y", logarithmic=True, least=1.0)
    low, high = figure.axes[0].get_ylim()
    assert 0.95 < low < 1
    assert high / low == pytest.approx(3)
    higher = {"a": [make_curve(middle=[50.0, 500.0, 5000.0])]}
    figure = draw_curves(higher, x_label="x", y_label="y", logarithmic=True, least=1.0)
    assert figure.axes[0].get_ylim()[0] > 10


def test_panels_may_have_scales_of_their_own():
    curves = {"a": [make_curve(middle=[1.0, 2.0])], "b": [make_curve(middle=[1e3, 9e5])]}
    options = {"x_label": "x", "y_label": "y", "logarithmic": True}
    limits = [axes.get_ylim() for axes in draw_curves(curves, **options, shared=False).axes]
    assert limits[0][1] < 10
    assert limits[1][0] > 100
    limits = [axes.get_ylim() for axes in draw_curves(curves, **options).axes]
    assert limits[0] == limits[1]


def test_long_titles_do_not_run_into_each_other():
    curves = [make_curve()]
    figure = draw({"no technique: " + "/a/long/path" * 8 + str(i): curves for i in range(2)})
    renderer = figure.canvas.get_renderer()
    left, right = (axes.title.get_window_extent(renderer) for axes in figure.axes)
    assert left.x1 < right.x0
    assert max(left.y1, right.y1) <= figure.bbox.y1


def test_bars_with_their_values():
    values = np.array([0.5, 0.0, np.nan, 0.25])
    names = ["a", "b", "c", "$d$" + 40 * "long"]
    errors = np.array([0.1, 0.0, np.nan, np.nan])
    figure = draw_bars(names, values, errors=errors, x_label="variance", largest=1.0)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0, 0, 0.25]
    assert [text.get_text() for text in axes.texts] == ["0.5", "0", "nan", "0.25"]
    assert axes.get_xlim() == pytest.approx((0, 1.15))
    assert axes.get_xlabel() == "variance"
    renderer = figure.canvas.get_renderer()
    for text in [*axes.texts, *axes.get_yticklabels()]:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
    heights = [label.get_window_extent(renderer).y0 for label in axes.get_yticklabels()]
    assert heights == sorted(heights, reverse=True)  # the first is at the top


def test_scales_and_ticks():
    figure = draw({"a": [make_curve(middle=[1.0, 30.0, 4e7])]})
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert "100k" in [text.get_text() for text in axes.get_xticklabels()]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert "100" in labels
    assert any("10^{6}" in label for label in labels)
    assert draw({"a": [make_curve()]}, logarithmic=False).axes[0].get_yscale() == "linear"


def test_the_users_settings_do_not_matter():
    panels = {"a": [make_curve(band=0.5)]}
    plain = encode_figure(draw(panels), "png")
    settings = {"font.size": 30, "axes.facecolor": "black", "axes.grid": False, "savefig.dpi": 20}
    with matplotlib.rc_context(settings):
        assert encode_figure(draw(panels), "png") == plain
        assert matplotlib.rcParams["font.size"] == 30


# Bad input


def test_bad_input_gets_one_line(tmp_path, complaint):
    run = write_run(tmp_path / "run", make_values())
    cases = [
        (["/no/such/run"], "there is no run folder /no/such/run"),
        ([run, tmp_path], "is not a run folder"),
        ([run, "--quantity", "gradient"], "has no records of the gradient; recorded: weight"),
        ([run, "--quantity", "bias"], "gradient"),
        ([run, "--measure", "rank"], "effective_rank"),
        ([run, "--layers", "a.U", "c.U"], "no records of a layer 'c.U'; choose from: a.U, b.U"),
        ([run, "--output", tmp_path / "x.bmp"], "the file must end in .png or .pdf or .svg"),
        ([run, "--output", tmp_path / "x"], "the file must end in .png or .pdf or .svg"),
        ([run, "--output", tmp_path / "no" / "x.png"], "there is no folder"),
        ([run, "--layer", "a.U"], "did you mean layers?"),
        ([], "run"),
    ]
    for arguments, message in cases:
        assert message in complaint(main, arguments), arguments
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "config.yaml",
        "metrics.jsonl",
        "run",
    ]


def test_several_runs_need_a_file(tmp_path, complaint):
    a, b = (write_run(tmp_path / name, make_values(), seed=i) for i, name in enumerate("ab"))
    assert "--output FILE is needed to draw 2 runs together" in complaint(main, [a, b])


@pytest.mark.usefixtures("drawn")
def test_a_run_without_the_chosen_layers(tmp_path, complaint):
    a = write_run(tmp_path / "a", make_values())
    b = write_run(tmp_path / "b", make_values(layers=["c.U"]))
    more = ["--output", tmp_path / "x.png"]
    assert f"{b} has records of c.U only" in complaint(main, [a, b, "--layers", "a.U", *more])
    assert main([str(a), str(b), "--output", str(tmp_path / "x.png")]) == 0


def test_a_run_that_measured_nothing(tmp_path, complaint):
    run = write_run(tmp_path / "run", {10: {}})
    assert "recorded: none (training.conditioning_every may be 0 or more" in complaint(main, [run])
    (run / "metrics.jsonl").unlink()
    assert "has no metrics.jsonl: it has not been trained" in complaint(main, [run])


def test_a_folder_that_may_not_be_written_to(tmp_path, complaint):
    run = write_run(tmp_path / "run", make_values())
    (run / "plots").write_text("a file")
    assert "plots" in complaint(main, [run])


def test_names_are_shown_plainly(tmp_path, capsys):
    hostile = "a\x1b[31mred\nline2"
    runs = [
        write_run(tmp_path / name, make_values(layers=[hostile]), objective={"name": name})
        for name in (hostile, "b")
    ]
    assert main([*map(str, runs), "--output", str(tmp_path / f"{hostile}.png")]) == 0
    printed, errors = capsys.readouterr()
    first, _, *rows = printed.splitlines()
    assert first == rf"figure: {tmp_path}/a\x1b[31mred\nline2.png"
    assert [row.split()[:2] for row in rows] == [
        [rf"{tmp_path}/{name}", r"a\x1b[31mred\nline2"] for name in (r"a\x1b[31mred\nline2", "b")
    ]
    assert not errors


@pytest.mark.usefixtures("drawn")
def test_the_command_is_known(monkeypatch, tmp_path, capsys):
    from disentangle.__main__ import main as console

    run = write_run(tmp_path / "run", make_values())
    monkeypatch.setattr(sys, "argv", ["disentangle", plot_conditioning.COMMAND, str(run)])
    with pytest.raises(SystemExit) as exited:
        console()
    assert exited.value.code == 0
    assert "figure: " in capsys.readouterr().out
