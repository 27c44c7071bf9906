"""Looks at the site in a browser: `python docs/site/check.py HTML` (`make site-check`).

Every page is opened at the width of a desk and of a phone, without a network. What counts as a fault: a serious or
critical finding of axe-core, a picture without alternative text, a page that is wider than the phone, a link to a file
that is not there, a request to another machine, an error on the page, a formula that was not set, and a search that
finds nothing.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

PHONE, DESK = (375, 800), (1280, 900)
LINKS = "() => [...document.querySelectorAll('a[href], img[src]')].map(item => item.href || item.src)"
NO_WORDS = "() => [...document.images].filter(item => !item.alt.trim()).map(item => item.src.slice(0, 80))"
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNSET = "() => document.querySelectorAll('.math').length > 0 && !document.querySelector('mjx-container')"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: object) -> None:
        pass


def faults_of(page: Page, name: str, root: Path, address: str) -> list[str]:
    """Opens a page of the site in both widths.

    Args:
        page: of the browser.
        name: the file, below `root`.
        root: the folder of the site.
        address: where it is served.

    Returns:
        its faults, in words.
    """
    found: list[str] = []
    for width, height in (PHONE, DESK):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"{address}/{name}")
        page.wait_for_function("() => !window.MathJax || !MathJax.startup || document.readyState === 'complete'")
        page.wait_for_timeout(400)
        if page.evaluate(TOO_WIDE) > 1:
            found.append(f"at {width} px it is {page.evaluate(TOO_WIDE)} px too wide")
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["html"][:90] for node in violation["nodes"]]
                found.append(f"axe at {width} px: {violation['id']} ({len(nodes)}), for example {nodes[0]}")
    if page.evaluate(UNSET):
        found.append("formulas were not set")
    found += [f"no alternative text: {source}" for source in page.evaluate(NO_WORDS)]
    for link in page.evaluate(LINKS):
        path = link.split("#")[0].split("?")[0].removeprefix(address).lstrip("/")
        if link.startswith(address) and path and not (root / path).exists():
            found.append(f"a link to {path}, which is not there")
    return found


def main(root: Path) -> int:
    """Checks the site and prints what is wrong.

    Args:
        root: the folder with its index.html.

    Returns:
        the exit code: 1 if something is wrong.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    pages = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.html") if "_static" not in path.parts)
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=["--no-sandbox"]
        )
        page = browser.new_context().new_page()
        page.set_default_timeout(180_000)  # pages with many pictures, on a busy machine
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "data:", "blob:")) else wrong.append(f"asks {request.url}")
            ),
        )
        for name in pages:
            wrong += [f"{name}: {fault}" for fault in faults_of(page, name, root, address)]
        page.goto(f"{address}/search.html?q=splatting")
        page.wait_for_timeout(2000)
        if not page.locator("ul.search li").count():
            wrong.append("the search for 'splatting' finds nothing")
        browser.close()
    server.shutdown()
    print("\n".join(dict.fromkeys(wrong)) or f"{len(pages)} pages at {PHONE[0]} and {DESK[0]} px: nothing wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
