"""What is installed: the wheel has what running takes, and a clean environment runs it."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*words, **options):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"longtake/py.typed", "longtake/__init__.py", "longtake/embedded/model_index.json"} <= names
    held = {name.split("/")[0] for name in names}
    assert held == {"longtake", next(name for name in held if name.endswith(".dist-info"))}
    sources = {
        f"longtake/{path.relative_to(ROOT / 'src/longtake').as_posix()}"
        for path in ROOT.glob("src/longtake/**/*.py")
    }
    assert sources <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_clean_environment_runs_it(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    assert "generate" in run(python.parent / "longtake", "--help", cwd=tmp_path)
    # What needs no framework runs without one, and with exactly what the package asks for.
    run(python.parent / "longtake", "scene", "a penguin in the snow", "-o", "penguin.png", cwd=tmp_path)
    assert "transformer" in run(python.parent / "longtake", "info", "embedded", cwd=tmp_path)


def test_the_source_archive_has_what_tests_and_pages_need(tmp_path):
    # hatchling is what pip builds with; a build of the archive has no other door in pip.
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "hatchling")
    run(python, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "tests", "examples")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sources <= names
    assert {
        "Makefile",
        "constraints.txt",
        "LICENSE",
        "docs/README.md",
        "tests/golden/transformer.npz",
    } <= names
    assert not any(name.startswith(("runs/", "build/", ".venv/")) for name in names)
