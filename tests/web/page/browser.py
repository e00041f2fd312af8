"""A real browser, without a window: Debian's Chromium by way of its driver."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pytest

WAIT = 30.0
"""Seconds after which something that should have happened has not."""

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")


def require() -> None:
    """Skip where there is no browser; fail where ``BELA_REQUIRE_BROWSER=1`` demands it."""
    missing = [
        name
        for name, found in (("chromium", CHROMIUM), ("chromium-driver", DRIVER))
        if found is None
    ]
    try:
        import selenium  # noqa: F401 - only whether it is there
    except ImportError:
        missing.append("selenium")
    if missing:
        reason = f"no browser to test in: {', '.join(missing)} (Debian; selenium from PyPI)"
        if os.environ.get("BELA_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


class Browser:
    """One window; what it asks for and what it logs is kept.

    :ivar requested: the address of every request so far.
    """

    def __init__(self) -> None:
        require()
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = str(CHROMIUM)
        for argument in (
            "--headless=new",
            "--no-sandbox",  # Tests may run as root, in a container.
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--lang=en-GB",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.requested: list[str] = []
        self._logged: list[str] = []

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.driver.quit()

    def size(self, width: int, theme: str) -> None:
        """Become a window, or below 600 pixels a phone, of a width and a theme.

        :param theme: ``light`` or ``dark``.
        """
        metrics = {
            "width": width,
            "height": 800,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        }
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page, and return what it does."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text of an element, as a person sees it."""
        found = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return str(found)

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait until something is so."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            WebDriverWait(self.driver, WAIT, poll_frequency=0.1).until(lambda _: true())
        except TimeoutException:
            pytest.fail(f"{what}: not within {WAIT:g} s; the page says {self.text('body')!r}")

    def drawn(self) -> bool:
        """Tell whether charts have come, and nothing more is being loaded."""
        charts = "return document.querySelectorAll('#plots canvas').length"
        return self.run(charts) > 0 and not self.text("#progress")

    def requests(self, part: str = "") -> list[str]:
        """Return the requests whose address has a part, those for data in the page aside."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
        return [url for url in self.requested if part in url and urlsplit(url).scheme != "data"]

    def logged(self) -> list[str]:
        """Return everything that was written to the console."""
        self._logged += [str(entry["message"]) for entry in self.driver.get_log("browser")]
        return self._logged

    def shoot(self, path: Path, width: int) -> None:
        """Write a picture of the whole page."""
        layout = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})
        height = layout["cssContentSize"]["height"]
        taken = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
            },
        )
        path.write_bytes(base64.b64decode(taken["data"]))
