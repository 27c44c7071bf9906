"""The house itself: set-up files that agree, imports that only run down, clean files, credited samples."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mi2v_lite"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Where conda-forge's name differs from pip's.
CONDA_NAMES = {"torch": "pytorch"}
# Left to pip in environment.yml: conda-forge's own package would bring a second copy of cv2.
PIP_ONLY = {"opencv-python-headless", "flow-vis"}

# The floors of the house; an import may go to a lower floor or stay inside its own wing. `control` stands between
# flow and the models that read it; `checks` grades exercises and may look at everything but the evaluation and the CLI.
FLOORS = {
    "io": 1,
    "flow": 2,
    "diffusion": 2,
    "control": 3,
    "models": 4,
    "data": 4,
    "pipelines": 5,
    "viz": 5,
    "training": 6,
    "importing": 7,
    "evaluation": 7,
    "cli": 8,
    "__main__": 9,
}

# Import name -> pip name, where they differ.
PIP_NAMES = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml", "flow_vis": "flow-vis"}


def requirements(*extras: str) -> dict[str, Requirement]:
    """The project's requirements by canonical name: the core ones, or those of the extras named."""
    lists = [PROJECT["optional-dependencies"][extra] for extra in extras] or [PROJECT["dependencies"]]
    parsed = [Requirement(text) for lines in lists for text in lines]
    return {canonicalize_name(each.name): each for each in parsed}


def floor(requirement: Requirement) -> str:
    """The lower bound of a requirement, as text."""
    bounds = [spec.version for spec in requirement.specifier if spec.operator == ">="]
    assert len(bounds) == 1, f"{requirement}: one lower bound expected"
    return bounds[0]


def repository_files() -> list[Path]:
    """Files that git tracks or would take; where there is no git, all but what is made by running."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True) if (ROOT / ".git").exists() else None
    if listed is not None and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        made = {".git", ".venv", ".venv-site", ".hypothesis", "runs", "outputs", "build", "dist", "__pycache__"}
        inside = [path for path in ROOT.rglob("*") if not made & set(path.relative_to(ROOT).parts)]
        paths = [path for path in inside if ".egg-info" not in str(path) and "_cache" not in str(path)]
    return sorted(path for path in paths if path.is_file())


def text_files() -> list[Path]:
    """Those of them that hold text: no zero byte near the start, and valid UTF-8."""
    found = []
    for path in repository_files():
        start = path.read_bytes()[:8192]
        if b"\0" in start:
            continue
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found.append(path)
    return found


def package_imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in a file, those inside functions and `if TYPE_CHECKING` too."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # For `from . import x` in a/b.py and in a/__init__.py alike, level 1 is the folder a.
            base = [*parts[: len(parts) - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def wing(dotted: str) -> str:
    """mi2v_lite.flow.warp.splat -> flow; a name that the package root hands out -> the wing it lives in."""
    name = dotted.split(".")[1] if "." in dotted else ""
    return {"MotionI2VPipeline": "pipelines", "MotionControl": "control"}.get(name, name)


def test_environment_has_the_floors_of_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert "conda-forge" in environment["channels"]
    plain = {
        canonicalize_name(r.name): r
        for r in map(Requirement, filter(lambda d: isinstance(d, str), environment["dependencies"]))
    }
    assert floor(plain["python"]) == floor(Requirement("python" + PROJECT["requires-python"]))
    assert "pip" in plain
    core = requirements()
    for name, requirement in core.items():
        if name not in PIP_ONLY:
            conda = CONDA_NAMES.get(name, name)
            assert conda in plain, f"environment.yml lacks {conda}"
            assert floor(plain[conda]) == floor(requirement), f"{conda}: floors differ"
    known = {CONDA_NAMES.get(name, name) for name in core} | {"python", "pip", "make"}
    assert set(plain) <= known, f"environment.yml alone has {sorted(set(plain) - known)}"
    through_pip = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert through_pip == [["-e .[notebooks,test]"]]
    assert set(PROJECT["optional-dependencies"]) == {"notebooks", "test"}


def test_lock_satisfies_pyproject():
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"requirements.lock: {line!r} is no plain pin"
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    assert len(pins) == len(lines), "requirements.lock pins a package twice"
    assert pins["torch"] == "2.13.0"
    assert "torchvision" not in pins
    for name, requirement in (requirements() | requirements("notebooks", "test")).items():
        assert name in pins, f"requirements.lock lacks {name}"
        assert requirement.specifier.contains(pins[name]), f"{requirement} against the lock's {pins[name]}"


def test_third_party_imports_are_declared():
    allowed = set(requirements()) | set(requirements("notebooks"))
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, dotted in package_imports(path):
            top = dotted.split(".")[0]
            if top in sys.stdlib_module_names or top in ("mi2v_lite", "IPython"):
                continue
            name = canonicalize_name(PIP_NAMES.get(top, top))
            assert name in allowed, f"{path.relative_to(ROOT)}:{line} imports {top}, which pyproject.toml does not name"


def test_imports_only_run_down():
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if here == "__init__":
            continue
        where = path.relative_to(ROOT)
        assert here in FLOORS, f"{where}: give {here!r} a floor in FLOORS"
        for line, dotted in package_imports(path):
            if dotted.split(".")[0] != "mi2v_lite":
                continue
            there = wing(dotted)
            if there in ("", "__version__", here):
                continue
            assert there in FLOORS, f"{where}:{line} imports {dotted}: no such wing"
            assert FLOORS[there] < FLOORS[here], (
                f"{where}:{line}: {here} must not import {there}, which is not below it"
            )


@pytest.mark.parametrize(
    "source, expected",
    [
        ("from .warp import splat_average", "mi2v_lite.flow.warp.splat_average"),
        ("from ..control import Drag", "mi2v_lite.control.Drag"),
        ("def f():\n    import mi2v_lite.cli", "mi2v_lite.cli"),
    ],
)
def test_import_reader_sees_relative_and_late_imports(source, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "mi2v_lite" / "flow" / "fields.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert [name for _, name in package_imports(path)] == [expected]


def test_package_needs_neither_tools_nor_checks_and_has_one_program():
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        for line, dotted in package_imports(path):
            assert dotted.split(".")[0] not in ("tools", "mi2v_checks"), f"{where}:{line} imports {dotted}"
        if where != "cli/__main__.py":
            assert not re.search(r"^if __name__ ==", path.read_text(encoding="utf-8"), re.MULTILINE), where


def test_wheel_carries_what_its_commands_need():
    """Compares the lists of pyproject.toml with the files, without building anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    named = {".".join(folder.parts) for folder in folders} | set(settings["package-dir"])
    assert sorted(settings["packages"]) == sorted(named)
    carried = set()
    for package, patterns in settings["package-data"].items():
        folder = ROOT / settings["package-dir"].get(package, package)
        for pattern in patterns:
            # In setuptools `**` means files at any depth, in pathlib folders only.
            files = [path for path in folder.glob(pattern.replace("**", "**/*")) if path.is_file()]
            assert files, f"{package}: no file matches {pattern}"
            carried |= set(files)
    needed = [ROOT / "data_samples" / part for part in ("photos", "sprites", "clips", "flows")]
    needed += [PACKAGE / "weights", PACKAGE / "configs", PACKAGE / "viz" / "widgets" / "static"]
    missing = [path for path in repository_files() if set(path.parents) & set(needed) and path not in carried]
    assert not missing, f"the wheel lacks {', '.join(str(path.relative_to(ROOT)) for path in missing)}"


def test_every_module_says_what_it_is():
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not tree.body or ast.get_docstring(tree), f"{path.relative_to(ROOT)} has no docstring"


def test_programs_with_former_names_go_on():
    from mi2v_lite.data import video
    from mi2v_lite.io import images, videos
    from mi2v_lite.training import builders, step_models
    from mi2v_lite.viz import media

    assert media.read_image is images.read_image and media.write_video is videos.write_video
    assert video.read_video is videos.read_video and video.copy_with_sound is videos.copy_with_sound
    assert builders.make_scheduler is step_models.make_scheduler


def test_importing_the_package_is_fast_and_lazy():
    code = "import sys, mi2v_lite; assert 'torch' not in sys.modules; print(mi2v_lite.__version__, dir(mi2v_lite))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "MotionI2VPipeline" in done.stdout
    import mi2v_lite

    with pytest.raises(AttributeError, match="no_such_name"):
        mi2v_lite.no_such_name  # noqa: B018


def glue(pieces: str) -> str:
    """Words that must not stand in the repository are written here with a tilde inside, not to find themselves."""
    return pieces.replace("~", "")


# Machine paths, package hosts, and words about how the project came to be.
# The look-behinds spare base64 text in notebooks, where a slash is a letter like any other, and pytest's own keyword.
FORBIDDEN = re.compile(
    glue(
        r"(?<![\w+/=.])/(?:wo~rk|tm~p|ro~ot|ho~me/\w+|op~t)(?:/|\b)"
        r"|files\.pythonho~sted|py~pi\.org"
        r'|(?<!scope=")(?<!Jupyter )\bses~sions?\b'
        r"|\bag~ents?\b"
    ),
    re.IGNORECASE,
)


def test_no_machine_paths_or_workplace_words():
    found = []
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            hit = FORBIDDEN.search(line)
            if hit:
                found.append(f"{path.relative_to(ROOT)}:{number}: {hit.group()!r}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["cd /wo~rk/main", "('/tm~p/x')", "the last ses~sion", "an Ag~ent", "https://py~pi.org", "/ho~me/me"]
)
def test_the_word_filter_finds(text):
    assert FORBIDDEN.search(glue(text))


@pytest.mark.parametrize("text", ["aGVsbG8/tm~p/d29ybGQ=", 'scope="ses~sion"', "frame/wo~rk", "a magenta reagent"])
def test_the_word_filter_spares(text):
    assert not FORBIDDEN.search(glue(text))


def test_repository_stays_small():
    sizes = {path: path.stat().st_size for path in repository_files()}
    golden = sum(size for path, size in sizes.items() if ROOT / "tests" / "golden" in path.parents)
    weights = sum(size for path, size in sizes.items() if PACKAGE / "weights" in path.parents)
    assert golden <= 1.1e6, f"tests/golden takes {golden / 1e6:.2f} MB; the bound is 1.1"
    assert weights <= 40e6, f"the weights take {weights / 1e6:.1f} MB; the bound is 40"
    assert sum(sizes.values()) <= 60e6, f"the repository takes {sum(sizes.values()) / 1e6:.1f} MB; the bound is 60"


def test_notebooks_are_stored_executed_and_clean():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert "widgets" not in notebook["metadata"], f"{path.name} stores widget state"
        for index, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code" and "".join(cell["source"]).strip():
                assert cell["execution_count"] is not None, f"{path.name}: cell {index} was not run"
                errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
                assert not errors, f"{path.name}: cell {index} stores an error"


def test_samples_are_credited_and_open():
    credits = (ROOT / "data_samples" / "README.md").read_text()
    photos = sorted((ROOT / "data_samples" / "photos").iterdir())
    assert len(photos) >= 6
    for path in photos:
        assert f"`{path.name}`" in credits, f"{path.name} is not credited in data_samples/README.md"
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB"
            assert max(image.size) <= 640
    for path in sorted((ROOT / "data_samples" / "clips").iterdir()):
        assert f"`{path.name}`" in credits, f"{path.name} is not credited in data_samples/README.md"
        assert path.stat().st_size < 400_000
        av = pytest.importorskip("av")
        with av.open(path) as container:
            frames = [frame for frame in container.decode(video=0)]
        assert len(frames) >= 16
