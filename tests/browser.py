"""A notebook in a real browser: JupyterLab, Chromium and a kernel, for tests of the interactive widgets.

A test asks for the fixture `open_notebook` (given by conftest.py) and gets a `Notebook`:

    def test_hover(open_notebook):
        notebook = open_notebook(["from mi2v_lite.viz.widgets import FlowExplorer\n...", "print(explorer.hovered)"],
                                 device_scale_factor=2)
        notebook.run(0)                                        # runs cell 0 to its end; returns what it printed
        canvas = notebook.cell(0).locator("canvas")            # Playwright locators from here on
        canvas.hover(position={"x": 10, "y": 20})
        assert notebook.run(1) == "...\n"                      # what the kernel knows, from its own output
        notebook.cell(0).screenshot(path=tmp_path / "seen.png")
        assert not notebook.errors                             # what the page's console complained of

`run` waits for the messages of the widgets to arrive first and fails with the traceback where the cell raises. The
kernel starts in `notebook.folder`, an empty folder of its own; each notebook has its own kernel and its own page, and
both end with the test. Take a bounding box anew before each stroke: outputs move when they grow.

No Chromium: the tests are skipped and say so. With MI2V_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import nbformat
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM_FLAGS = [
    "--no-sandbox",  # root has no sandbox, as in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    # All cells stay in the page: with windowing, a cell out of view takes its widget with it.
    "notebook-extension/tracker": '{"windowingMode": "none", "autoStartDefaultKernel": true}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}',
}

# Scripts of the page. Each returns as soon as it is through, or throws after `limit` milliseconds.
PANEL = """
    const pause = ms => new Promise(done => setTimeout(done, ms));
    const panel = () => [...jupyterapp.shell.widgets('main')].find(each => each.sessionContext);
    const idle = () => panel().sessionContext.kernelDisplayStatus === 'idle';
    const end = performance.now() + limit;
    const late = what => { if (performance.now() > end) throw new Error(what + ' after ' + limit / 1000 + ' s'); };
"""
READY = f"""async limit => {{{PANEL}
    while (!window.jupyterapp || !panel()) {{ late('no notebook'); await pause(50); }}
    await panel().revealed;
    await panel().sessionContext.ready;
    while (!idle()) {{ late('no kernel'); await pause(50); }}
}}"""
# Widgets hold messages back while the kernel is busy, so quiet means idle for a while.
QUIET = f"""async limit => {{{PANEL}
    for (let still = 0; still < 4; still = idle() ? still + 1 : 0) {{
        late('the kernel is busy');
        await pause(60);
    }}
}}"""
RUN = f"""async ([index, limit]) => {{{PANEL}
    const book = panel().content;
    book.activeCellIndex = index;
    book.deselectAll();
    const run = jupyterapp.commands.execute('notebook:run-cell');
    await Promise.race([run, pause(limit + 1).then(() => late('cell ' + index + ' still runs'))]);
    return book.widgets[index].model.outputs.toJSON();
}}"""


class Lab:
    """A JupyterLab server on 127.0.0.1 with its own folders for everything; `close` ends it and its kernels."""

    def __init__(self, folder: Path, seconds: float = 180) -> None:
        """Starts it and waits until it answers. `folder`: empty; notebooks lie in `folder / "notebooks"`."""
        self.folder = folder / "notebooks"
        self.folder.mkdir(parents=True)
        self.token = secrets.token_hex(12)
        for name, text in SETTINGS.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
        places |= {"LAB_SETTINGS_DIR": "settings", "LAB_WORKSPACES_DIR": "workspaces"}
        places = {f"JUPYTER{'' if 'LAB' in key else '_'}{key}": str(folder / name) for key, name in places.items()}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = (
            os.environ | places | {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": os.pathsep.join(paths)}
        )
        options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1"]
        options += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        options += [f"--ServerApp.root_dir={self.folder}", "--ServerApp.terminals_enabled=False"]
        self.log = folder / "jupyter.log"
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "jupyter", "lab", *options]
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            self._wait(seconds)
        except BaseException:
            self.close()
            raise

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/api?token={self.token}", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}") from None
                time.sleep(0.2)

    def close(self) -> None:
        """Asks the server to end, and makes it end if it does not."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Notebook:
    """An open notebook. `page`: Playwright's page. `folder`: where its file lies and its kernel runs.

    `errors`: texts of exceptions and of errors logged by the page, so far.
    """

    def __init__(self, page: Page, folder: Path, url: str, timeout: float) -> None:
        self.page, self.folder, self.timeout = page, folder, timeout
        self.errors: list[str] = []
        page.set_default_timeout(timeout * 1000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.goto(url)
        page.evaluate(READY, timeout * 1000)

    def run(self, index: int, timeout: float | None = None) -> str:
        """Runs the code cell number `index` to its end, after all messages of widgets have arrived.

        Returns:
            what it printed, exactly.

        Raises:
            AssertionError: with the traceback, where the cell raised. playwright's Error: after `timeout` seconds.
        """
        self.settle()
        outputs = self.page.evaluate(RUN, [index, (timeout or self.timeout) * 1000])
        failed = ["\n".join(out["traceback"]) for out in outputs if out["output_type"] == "error"]
        assert not failed, f"cell {index} raised:\n{failed[0]}"
        texts = [out["text"] for out in outputs if out["output_type"] == "stream" and out["name"] == "stdout"]
        return "".join("".join(text) for text in texts)

    def settle(self) -> None:
        """Waits until the kernel is idle and has what the widgets sent."""
        self.page.evaluate(QUIET, self.timeout * 1000)

    def cell(self, index: int) -> Locator:
        """The cell number `index` with its outputs, scrolled into view."""
        found = self.page.locator(".jp-Notebook .jp-Cell").nth(index)
        found.scroll_into_view_if_needed()
        return found


def chromium_path() -> str:
    """The browser's program; without one the test is skipped, or fails where MI2V_BROWSER is 1."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        message = "no chromium on this machine (apt-get install chromium)"
        if os.environ.get("MI2V_BROWSER") == "1":
            pytest.fail(f"{message}, and MI2V_BROWSER=1 demands it")
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server for all tests."""
    chromium_path()
    pytest.importorskip("jupyterlab")
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a file, closed after it: Playwright's event loop would disturb other files' own."""
    path = chromium_path()
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(lab: Lab, chromium: Browser) -> Iterator[Callable[..., Notebook]]:
    """`open_notebook(cells, device_scale_factor=1, viewport=(1200, 1000), timeout=180)` -> `Notebook`.

    `cells`: source of each code cell, or an `nbformat` notebook, which is opened as it is. `timeout`: seconds.
    """
    nbformat = pytest.importorskip("nbformat")
    contexts = []

    def opener(
        cells: Sequence[str] | nbformat.NotebookNode,
        device_scale_factor: float = 1,
        viewport: tuple[int, int] = (1200, 1000),
        timeout: float = 180,
    ) -> Notebook:
        book = cells
        if not isinstance(book, nbformat.NotebookNode):
            book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
            kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
            book.metadata["kernelspec"] = kernel
        name = f"test-{secrets.token_hex(4)}"
        folder = lab.folder / name
        folder.mkdir()
        nbformat.write(book, folder / "test.ipynb")
        width, height = viewport
        context = chromium.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=device_scale_factor
        )
        contexts.append(context)
        url = f"{lab.url}/doc/workspaces/{name}/tree/{name}/test.ipynb?token={lab.token}"
        return Notebook(context.new_page(), folder, url, timeout)

    yield opener
    for context in contexts:
        context.close()
    if contexts:
        _end_kernels(lab)


def _end_kernels(lab: Lab) -> None:
    """Kernels outlive their page, so they are ended here."""

    def ask(path: str, method: str = "GET") -> bytes:
        headers = {"Authorization": f"token {lab.token}"}
        request = urllib.request.Request(lab.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.read()

    for kernel in json.loads(ask("/api/kernels")):
        ask(f"/api/kernels/{kernel['id']}", "DELETE")
