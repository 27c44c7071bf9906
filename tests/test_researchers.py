"""The researcher's page does what it says: its pieces of code run, one after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "researchers.md").read_text()


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    for needed in ("anywidget", "matplotlib"):
        pytest.importorskip(needed)
    (tmp_path / "data_samples").symlink_to(ROOT / "data_samples")
    monkeypatch.chdir(tmp_path)
    pieces, space = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL), {"__name__": "page"}
    for piece in pieces:
        assert len(piece.splitlines()) <= 30
        exec(compile(piece, "docs/researchers.md", "exec"), space)
    assert (tmp_path / "curve.pdf").read_bytes().startswith(b"%PDF") and b"/Font" in (
        tmp_path / "curve.pdf"
    ).read_bytes()
    assert (tmp_path / "field.pdf").read_bytes().startswith(b"%PDF")
    assert space["read_flow"]("fields.npz").shape == space["tracks"].flow.shape
