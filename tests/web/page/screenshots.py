"""Take the pictures of the documentation: ``python -m tests.web.page.screenshots``.

They are of the real service on a board's files, two hours into its day, in a real browser.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.web.page.browser import Browser
from tests.web.page.device import running

WIDTHS = (360, 1280)


def ready(browser: Browser) -> bool:
    """Tell whether everything is there that takes its time."""
    return (
        browser.drawn()
        and "…" not in browser.text("main")
        and "not known yet" not in browser.text("#backlog")
        and "the server" in browser.text("#clock")
        and "ago" in browser.text("#upload")
        and browser.run("return document.querySelectorAll('#cores li').length") == 8
        and browser.run("return document.querySelectorAll('#plots figure').length") == 8
    )


def main(where: Path) -> None:
    """Take a picture of each width in each theme.

    :param where: the folder for ``status-<width>-<theme>.png``.
    """
    where.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory() as folder,
        running(Path(folder) / "box", past=7200, upload_interval="5s") as device,
        Browser() as browser,
    ):
        for width in WIDTHS:
            for theme in ("light", "dark"):
                browser.size(width, theme)
                browser.open(device.url)
                browser.until(lambda: ready(browser), "the whole page")
                path = where / f"status-{width}-{theme}.png"
                browser.shoot(path, width)
                print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
