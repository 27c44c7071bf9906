"""What all tests share: a quiet OpenMP, set before torch is imported, and the folder of reference tensors."""

import os
from collections.abc import Iterator
from pathlib import Path

# Idle OpenMP threads spin by default; two torch processes on a small machine then slow each other many times over.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pytest
from browser import chromium, lab, open_notebook  # noqa: F401 - fixtures of the browser tests
from hypothesis import settings

# Without one of these, the tests that come to need it are skipped, and all others run.
OPTIONAL = {"IPython", "anywidget", "av", "ipywidgets", "matplotlib", "nbformat", "nbgrader", "playwright", "traitlets"}
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of reference tensors: $MI2V_GOLDEN where it is set, else tests/golden."""
    given = os.environ.get("MI2V_GOLDEN")
    folder = Path(given).expanduser().resolve() if given else ROOT / "tests" / "golden"
    if not folder.is_dir():
        raise FileNotFoundError(f"no reference tensors at {folder}: set MI2V_GOLDEN to a folder, or unset it")
    return folder


# In CI the property tests draw the same examples at every run; elsewhere they search on.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def skipped_without_optional(item: pytest.Item) -> Iterator[None]:
    """Turns the failed import of an optional package into a skip that names the package."""
    try:
        return (yield)
    except ImportError as error:
        missing = error if error.name else error.__cause__  # the package says in words of its own how to install PyAV
        package = (getattr(missing, "name", None) or "").partition(".")[0]
        if package in OPTIONAL:
            pytest.skip(f"needs {package}, which is not installed")
        raise


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(skipped_without_optional)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(skipped_without_optional)
