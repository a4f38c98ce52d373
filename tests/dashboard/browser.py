"""A page in headless Chromium, looked at and used as a person does."""

import contextlib
import shutil
import time

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--window-size=1600,1000",
)
# Where a point of a chart is, in pixels of its window.
PLACE = """
const [chart, x, y] = arguments
const {figure} = gradwatch.runs[0].heatmap
const made = chart == "heatmap" ? figure : gradwatch.runs[0].charts[chart]
const view = Bokeh.index.find_one(made)
view.el.scrollIntoView({block: "center"})
const {left, top} = view.el.getBoundingClientRect(), {frame} = view
const middle = (frame.bbox.top + frame.bbox.bottom) / 2
const sy = y === null ? middle : frame.y_scale.compute(y)
return [left + frame.x_scale.compute(x), top + sy]
"""


def start():
    """A browser; skips the test where none is installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which(DRIVER)
    if program is None or driver is None:
        pytest.skip(f"needs a browser: {' or '.join(BROWSERS)}, and {DRIVER}")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    return Browser(webdriver.Chrome(options, service))


class Browser:
    """What a person does with a page.

    Args:
        driver: Selenium's driver.
    """

    def __init__(self, driver):
        self.driver = driver

    def script(self, code, *arguments):
        """What a script returns."""
        return self.driver.execute_script(code, *arguments)

    def open(self, url):
        """Opens a page, and waits until it is drawn; returns the seconds it took."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        began = time.monotonic()
        self.driver.get(str(url))
        self.wait("return document.body.dataset.ready")
        return time.monotonic() - began

    def wait(self, code, *arguments, seconds=60):
        """Waits until a script returns something; returns that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):  # a frame that is being replaced
                if found := self.script(code, *arguments):
                    return found
            time.sleep(0.05)
        raise AssertionError(f"never came true: {code}")

    def errors(self):
        """What the page has complained of since it was opened."""
        log = self.driver.get_log("browser")
        lines = [line["message"] for line in log if line["level"] == "SEVERE"]
        return [line for line in lines if "/favicon.ico" not in line]

    def _pointer(self):
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        actions = ActionBuilder(self.driver, duration=50)
        return actions, actions.pointer_action

    def point(self, chart, x, y=None, click=False):
        """Moves the pointer to a point of a chart; returns what is told there.

        Args:
            chart: "heatmap", or the number of a chart of the timeline.
            x: Step.
            y: In the unit of the axis; None: in the middle.
            click: Whether to click there.
        """
        actions, pointer = self._pointer()
        left, top = self.script(PLACE, chart, x, y)
        pointer.move_to_location(int(left) - 3, int(top))
        pointer.move_to_location(round(left), round(top))
        if click:
            pointer.click()
        actions.perform()
        return self.script("return document.getElementById('gw-tip').textContent")

    def drag(self, chart, begin, end):
        """Drags from one step to another."""
        actions, pointer = self._pointer()
        for x, act in ((begin, pointer.pointer_down), (end, pointer.pointer_up)):
            left, top = self.script(PLACE, chart, x, None)
            pointer.move_to_location(round(left), round(top))
            act()
        actions.perform()
