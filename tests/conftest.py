"""What all tests share: a quiet OpenMP, set before torch is imported, and the folder of reference tensors."""

import os
from pathlib import Path

# Idle OpenMP threads spin by default; two torch processes on a small machine then slow each other many times over.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pytest
from browser import chromium, lab, open_notebook  # noqa: F401 - fixtures of the browser tests
from hypothesis import settings

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
