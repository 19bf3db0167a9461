import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import disentangle

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed():
    """`packages` is explicit, since `package-dir` puts two of them elsewhere."""
    found = {
        ".".join(Path(folder).relative_to(ROOT).parts)
        for folder, _, files in os.walk(ROOT / "disentangle", followlinks=True)
        if "__init__.py" in files
    }
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == found


def test_the_links_are_relative():
    for name in ("models", "metrics"):
        assert os.readlink(ROOT / "disentangle" / name) == f"../{name}"


def test_the_changelog_knows_the_version_or_what_comes_next():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in changelog or f"## {disentangle.__version__}" in changelog


def run_python(code):
    """Run code in the root of the checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("module", ["metrics.information", "models.resnet", "metrics", "models"])
def test_no_module_has_a_second_name(module):
    package = module.split(".")[0]
    result = run_python(f"import {module}")
    expected = (
        f"ImportError: import disentangle.{package}, not {package}: it would be a second copy"
    )
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, expected)


def test_functions_hide_the_modules_of_their_name_whatever_is_imported_first():
    hidden = {
        "disentangle.metrics": ("mig", "sap", "dci", "udr"),
        "disentangle.orthogonality": ("attach", "orthogonal_loss"),
        "disentangle.traversal": ("traverse",),
    }
    lines = [
        f"import {package}.{name}; from {package} import {name}; assert {name}.__name__ == {name!r}"
        f" and not isinstance({name}, type(os)), {name}"
        for package, names in hidden.items()
        for name in names
    ]
    result = run_python("\n".join(["import os", *lines]))
    assert result.returncode == 0, result.stderr
