"""What `make lab` sets: the names in notebooks/lab are those of the installed JupyterLab and nbgrader."""

import json
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("jupyterlab")

ROOT = Path(__file__).resolve().parent.parent
SHARE = Path(sysconfig.get_path("data")) / "share" / "jupyter"
LAB = ROOT / "notebooks" / "lab"


def test_overrides_are_settings_that_there_are():
    for name, values in json.loads((LAB / "labconfig" / "default_setting_overrides.json").read_text()).items():
        extension, plugin = name.split(":")
        schema = json.loads((SHARE / "lab" / "schemas" / extension / f"{plugin}.json").read_text())
        assert values.keys() <= schema["properties"].keys(), name


def test_disabled_extensions_are_there():
    disabled = json.loads((LAB / "labconfig" / "page_config.json").read_text())["disabledExtensions"]
    assert (SHARE / "labextensions" / "@jupyter" / "nbgrader").is_dir() and disabled["@jupyter/nbgrader"]
    config = (LAB / "jupyter_server_config.py").read_text()
    for name in json.loads(Path(SHARE.parent.parent, "etc/jupyter/jupyter_server_config.d/nbgrader.json").read_text())[
        "ServerApp"
    ]["jpserver_extensions"]:
        assert name.rsplit(".", 1)[1] in config, f"{name} is not switched off in notebooks/lab"
    assert (ROOT / "notebooks" / "00_start_here.ipynb").is_file() and "notebooks/00_start_here.ipynb" in config


def test_a_notebook_that_is_only_opened_and_saved_stays_as_it_is(tmp_path, monkeypatch):
    """JupyterLab writes the version of Python into its metadata, which git would show as a change."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from traitlets.config import PyFileConfigLoader

    source = (ROOT / "notebooks" / "00_start_here.ipynb").read_bytes()
    (tmp_path / "00.ipynb").write_bytes(source)
    config = PyFileConfigLoader("jupyter_server_config.py", str(LAB)).load_config()
    manager = LargeFileManager(root_dir=str(tmp_path), config=config)
    model = manager.get("00.ipynb")
    assert model["content"]["metadata"]["language_info"] == {"name": "python"}
    model["content"]["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    model["content"]["metadata"]["language_info"] = {
        "name": "python",
        "version": "3.11.7",
        "pygments_lexer": "ipython3",
    }
    manager.save(model, "00.ipynb")
    assert (tmp_path / "00.ipynb").read_bytes() == source
