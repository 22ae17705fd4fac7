"""The notebook in examples/ runs from its first cell to its last, and is shipped with what it showed."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "python.ipynb"


def _pictures(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_it_runs(packed: Path, three_runs: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKGAN_RUN", str(three_runs[2]))
    monkeypatch.setenv("STACKGAN_DATA", str(packed))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120).execute(cwd=str(NOTEBOOK.parent))
    assert len(_pictures(notebook)) == 5


def test_it_is_shipped_with_pictures_and_is_small() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(_pictures(notebook)) == 5
    assert "Traceback" not in NOTEBOOK.read_text()
    assert NOTEBOOK.stat().st_size < 500_000
