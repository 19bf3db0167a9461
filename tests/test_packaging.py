import os
import tomllib
from pathlib import Path

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
