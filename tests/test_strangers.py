"""Files of strangers: nothing in them is executed, written outside or allocated, and nothing is downloaded."""

import ast
import json
import os
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from test_bad_inputs import there, weights  # noqa: F401 - the folder of good and bad files

from mi2v_lite import cli
from mi2v_lite.control import MotionControl
from mi2v_lite.data.shards import ShardSet
from mi2v_lite.flow.files import read_flow
from mi2v_lite.flow.trackers import load_tracker
from mi2v_lite.importing.files import Shelf
from mi2v_lite.io.images import read_image
from mi2v_lite.training.settings import read_yaml

PACKAGE = Path(cli.__file__).parents[1]
# Calls that execute what they read, unpack archives, or ask the network; and what makes some of them safe.
FORBIDDEN = {"eval", "exec", "system", "popen", "extractall", "extract", "urlopen", "urlretrieve", "snapshot_download"}
FORBIDDEN |= {
    "hf_hub_download",
    "load_url",
    "load_state_dict_from_url",
    "unsafe_load",
    "full_load",
    "Unpickler",
    "loads_pickle",
}


def calls() -> list[tuple[str, str, ast.Call]]:
    """Each call of the package: where it stands, what is called, and the call."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", ast.unparse(node.func), node))
    return found


def option(call: ast.Call, name: str) -> str | None:
    """What a call gives for an option, as code."""
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def test_no_call_executes_what_a_file_says():
    for where, name, call in calls():
        short = name.rpartition(".")[2]
        assert short not in FORBIDDEN or name.endswith(".eval") or name == "platform.system", f"{where} calls {name}"
        assert not name.startswith(("pickle.", "marshal.", "shelve.", "dill.", "joblib.")), f"{where} calls {name}"
        if name == "torch.load":
            assert option(call, "weights_only") == "True", f"{where}: torch.load without weights_only=True"
        if name in ("np.load", "numpy.load"):
            assert option(call, "allow_pickle") in (None, "False"), f"{where}: np.load with pickles"
        if name.startswith("yaml."):
            assert name == "yaml.safe_load" or option(call, "Loader") == "_Loader", f"{where} calls {name}"
        if name == "torch.jit.load":  # a program; the documentation of the trackers says so
            assert where.startswith("flow/trackers.py"), where
        assert option(call, "trust_remote_code") is None, where


def test_only_folders_are_loaded_from():
    """A name that is no folder would be asked of a hub, unless the call says otherwise."""
    for where, name, call in calls():
        if name.endswith(".from_pretrained") and not name.startswith(("super()", "cls.", "kind.", "VideoUNet.")):
            assert option(call, "local_files_only") == "True", f"{where}: {name} without local_files_only"


@pytest.fixture
def no_network(monkeypatch):
    """Fails at the first question to a network."""

    def refused(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def test_commands_ask_no_network(there, weights, tmp_path, monkeypatch, capsys, no_network):  # noqa: F811
    monkeypatch.chdir(there)
    out = tmp_path / "out"
    for words in (
        f"animate photo.png --prompt red --frames 3 --steps 1 --weights {weights} -o {out}/clip.mp4",
        f"track clip.mp4 --size 32 -o {out}/fields.npz",
        f"world -o {out}/world.png --clips 1 --size 32 --frames 2",
        "doctor",
    ):
        assert cli.main(words.split()) == 0, capsys.readouterr().err
    for words in (
        "train no_tokenizer.yaml --step motion --runs none",
        "evaluate --clip none",
        "animate photo.png --prompt x --weights stabilityai/sd -o x.mp4",
        "import --sd runwayml/sd --release x -o y",
    ):
        assert cli.main(words.split()) == 2


def test_importing_everything_asks_no_network():
    """A process that ends at the first question imports all modules."""
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    modules = [".".join(path.parts) for path in paths]
    names = [name for name in modules if not name.endswith("__main__")]
    code = f"""
import importlib, os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print(event, args, flush=True)
        os._exit(3)
sys.addaudithook(watch)
for name in {names}:
    try:
        importlib.import_module(name.removesuffix(".__init__"))
    except ImportError as error:
        assert error.name and not error.name.startswith("mi2v_lite"), error
"""
    paths = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]


HOSTILE = {
    "a field of 8 exabytes": (read_flow, "huge.npz"),
    "a .flo of 60 gigabytes": (read_flow, "size.flo"),
    "a KITTI picture of 21 gigabytes": (read_flow, "bomb.png"),
    "a photo of 3.6 gigapixels": (read_image, "bomb.png"),
    "a brush of 3.6 gigapixels": (MotionControl.load, "control_brush_bomb.json"),
    "a checkpoint with a header of an exabyte": (Shelf().open, "long.safetensors"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_before_memory_is_taken(there, monkeypatch, name):  # noqa: F811
    monkeypatch.chdir(there)
    read, path = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            read(Path(path))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "read",
    [
        lambda: read_flow("pickle.npz"),
        lambda: Shelf().open(Path("evil.ckpt")),
        lambda: load_tracker("dot:evil.ckpt"),
        lambda: read_yaml(Path("config_python.yaml")),
    ],
)
def test_nothing_in_a_file_is_executed(there, monkeypatch, read):  # noqa: F811
    monkeypatch.chdir(there)
    with pytest.raises(ValueError):
        read()
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/secret", "..", ""])
def test_no_shard_lies_outside_its_folder(tmp_path, name):
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "secret.tar").write_bytes(b"x")
    clip = {"num_frames": 2, "height": 16, "width": 16}
    (folder / "shards.json").write_text(json.dumps({"clip": clip, "shards": [[name, 1]]}))
    with pytest.raises(ValueError, match="cannot be the name of a shard"):
        ShardSet(folder)
