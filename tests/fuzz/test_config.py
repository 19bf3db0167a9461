"""Configurations of anyone: a run, or one line that says what is wrong."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from disentangle.config.parse import parse_run
from disentangle.config.yaml_files import MOST_BYTES, read_yaml
from tests.helpers.damage import damaged, read_or_refuse, trap

SOUND = """\
task: vae
output: runs/x  # a folder
data: {name: sprites, orientations: 1}
model: {name: subspace_vae, image_size: 32, base_channels: 4}
objective:
  kind: beta
  beta: 4.0
optimizer: {lr: 1e-4, betas: [0.5, 0.9]}
training: &training {steps: 5, batch_size: 4}
orthogonality: [nog, olr]
seed: 3
"""
OPTIONS = ["name", "path", "kind", "steps", "lr", "betas", "beta", "image_size", "flip", "__path__"]
KEYS = ["task", "output", "data", "model", "objective", "optimizer", "training", "discriminator"]
KEYS += ["orthogonality", "pre_svd_parameters", "orthogonal_loss_weight", "seed", "resume"]
KEYS += ["overwrite", "config", "help", "print_config", "class_path", "init_args", "__path__"]
KEYS += ["training.steps", "a..b", "", "."]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [10**400, -1, 2**63, "vae", "gan", "sprites", "nog", "subspace_vae", "/dev/null"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(OPTIONS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def read(file):
    run, options = parse_run(["--config", str(file)])
    assert not options.overwrite
    assert options.resume is None
    return run


@given(content=damaged(SOUND.encode()))
def test_damaged_configurations(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    read_or_refuse(lambda: read(tmp_path / "a.yaml"))


@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_values_of_any_kind(tmp_path, changes):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(yaml.safe_load(SOUND) | changes))
    if read_or_refuse(lambda: read(tmp_path / "a.yaml")):
        run = read(tmp_path / "a.yaml")
        (tmp_path / "again.yaml").write_text(run.dump())
        assert read(tmp_path / "again.yaml") == run


@given(
    section=st.sampled_from(["data", "model", "objective", "optimizer", "training"]),
    name=st.sampled_from(OPTIONS) | st.text(max_size=5),
    value=VALUES,
)
def test_options_of_any_kind(tmp_path, section, name, value):
    content = yaml.safe_load(SOUND)
    content[section][name] = value
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    read_or_refuse(lambda: read(tmp_path / "a.yaml"))


@given(
    option=st.sampled_from([*KEYS, "training.batch_size", "optimizer.betas", "model.name"]),
    value=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_words_of_the_command_line(tmp_path, option, value):
    (tmp_path / "a.yaml").write_text(SOUND)
    words = ["--config", str(tmp_path / "a.yaml"), f"--{option}", value]
    if option not in ("help", "print_config"):  # which print and exit
        read_or_refuse(lambda: parse_run(words))


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n" for k in range(12)
)
REFUSED = {
    "billion laughs": (LAUGHS, "it must not have more than 10000 values"),
    "a list in itself": ("a: &a [*a]", "it must not have more than 10000 values"),
    "deep lists": ("a: " + "[" * 100_000, "it must not be nested more than 20 deep"),
    "deep mappings": ("{a: " * 10_000, "it must not be nested more than 20 deep"),
    "too long": ("#" * (MOST_BYTES + 1), f"must have {MOST_BYTES} bytes at most"),
    "a key twice": ("seed: 1\nseed: 2", "the key 'seed' is repeated"),
    "a key twice within": ("training: {steps: 1, steps: 2}", "the key 'steps' is repeated"),
    "a key of another type": ("1: 2", "its keys must be text, got 1"),
    "a date that is none": ("a: !!timestamp x", "is not YAML"),
    "an integer of many digits": (f"seed: {'9' * 5000}", "is not YAML: Exceeds the limit"),
    "half a character": ('output: "\\ud800"', "is not YAML"),
    "another encoding": ("task: vae".encode("utf-16"), "is not YAML"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
    "a file for a section": ("training: a.yaml", "training must be a mapping of options, got"),
    "a file for a run": ("__path__: a.yaml", "a run must be given by its options, got the file"),
    "a file of its own": ("config: a.yaml", "must not hold config, which goes on the command"),
    "a run to replace": ("overwrite: true", "must not hold overwrite, which goes on the command"),
    "a run to go on with": ("resume: latest", "must not hold resume, which goes on the command"),
    "no seed": ("seed: null", "seed must have a value, got null"),
    "no steps": ("training: {steps: null}", "training.steps must have a value, got null"),
    "no size": ("model: {image_size: null}", "model.image_size must have a value, got null"),
    "no path": ('output: "a\\0b"', r"output must be the path of a folder, got 'a\x00b'"),
    "no number": ("optimizer: {lr: .nan}", "optimizer.lr must be finite, got nan"),
    "infinite": ("objective: {beta: .inf}", "objective.beta must be finite, got inf"),
}
RUN = ["--task", "vae", "--model.name", "subspace_vae", "--data.name", "sprites", "--output", "x"]


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r".") as caught:
        parse_run([*RUN, "--config", str(tmp_path / "a.yaml")])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir [{}]", "python/name:os.mkdir {}"])
def test_tags_run_nothing(tmp_path, tag):
    with trap(tmp_path) as caught:
        (tmp_path / "a.yaml").write_text(f"seed: !!{tag.format(caught.folder)}")
        with pytest.raises(ValueError, match="could not determine a constructor"):
            read_yaml(tmp_path / "a.yaml")


def test_plain_yaml_is_read_as_ever(tmp_path):
    text = "a: &a {b: 1.5, c: [x, null, true]}\nd: {<<: *a, b: 2}\ne: 2026-01-01\nf: .inf"
    (tmp_path / "a.yaml").write_text(text)
    shared = {"b": 1.5, "c": ["x", None, True]}
    expected = {"a": shared, "d": shared | {"b": 2}, "e": "2026-01-01", "f": math.inf}
    assert read_yaml(tmp_path / "a.yaml") == expected
