"""Draws `images/dashboard.png`, `images/dashboard_tab.png`: the quickstart's runs.

python examples/quickstart.py && python docs/dashboard.py [--logs DIR] [--out FOLDER]

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`).
"""

import argparse
import contextlib
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from selenium import webdriver

from keras_gradwatch.reports import pages

WIDTH, HEIGHT = 1400, 900
READY = "return document.body.dataset.ready"
TAB = """
document.querySelector("[role=tab] [data-plugin-id=gradwatch]")?.click()
const frame = document.querySelector("iframe")?.contentDocument.querySelector("iframe")
return frame?.style.visibility == "visible" && frame.contentDocument.body?.dataset.ready
"""


def wait(browser, script):
    """Waits until a script returns something, and until it is drawn."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # a page that is still loading
            if browser.execute_script(script):
                time.sleep(1)
                return
        time.sleep(0.2)
    raise SystemExit(f"never came true: {script}")


def draw(browser, url, script, path, height=None):
    """Writes the picture of a page; as high as the page without a height."""
    browser.get(url)
    wait(browser, script)
    whole = "return document.documentElement.scrollHeight"
    height = height or browser.execute_script(whole)
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    time.sleep(1)
    browser.save_screenshot(str(path))


@contextlib.contextmanager
def tensorboard(logs):
    """The address of a TensorBoard."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logs]
    command += ["--host", "127.0.0.1", "--port", port]
    address = ("127.0.0.1", port)
    server = subprocess.Popen([*map(str, command)])
    try:
        while server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(address):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=pathlib.Path, default="logs/quickstart")
    parser.add_argument("--out", type=pathlib.Path, default="docs/images")
    arguments = parser.parse_args()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in ("--headless=new", "--no-sandbox", "--no-proxy-server"):
        options.add_argument(option)
    options.add_argument(f"--window-size={WIDTH},{HEIGHT}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options, service)
    runs = [arguments.logs / "adam-stock", arguments.logs / "adam"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.callback(browser.quit)
        page = pathlib.Path(folder) / "page.html"
        pages.write(runs, page)
        draw(browser, page.as_uri(), READY, arguments.out / "dashboard.png")
        with tensorboard(arguments.logs) as url:
            draw(browser, url, TAB, arguments.out / "dashboard_tab.png", HEIGHT)


if __name__ == "__main__":
    main()
