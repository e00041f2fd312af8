"""The page in a real browser, on the real service: what a person sees of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.web.page.browser import Browser, require
from tests.web.page.device import Device, running

pytestmark = pytest.mark.process

UPLINKS = ["eth0", "eth1", "eth2", "usb0", "wlan0", "wwan0"]

# The pixels of a colour of the first line, in each chart.
_PAINTED = """
const style = getComputedStyle(document.documentElement);
const pairs = (name) => style.getPropertyValue(name).trim().slice(1).match(/../g);
const number = (two) => parseInt(two, 16);
const colours = [...Array(8).keys()].map((n) => pairs(`--c${n}`).map(number).join());
return [...document.querySelectorAll("#plots canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (colours.includes([data[i], data[i + 1], data[i + 2]].join())) count += 1;
  }
  return count;
});
"""


def answers(part: str, change: str) -> dict[str, str]:
    """Write a script that changes the answers to those requests whose address has a part.

    :param change: statements that change ``body``; ``asked`` is how many there were before.
    """
    return {
        "source": f"""{{
            const original = window.fetch;
            let asked = 0;
            window.fetch = async (...what) => {{
                const answer = await original(...what);
                if (!String(what[0]).includes({part!r}) || !answer.ok) return answer;
                const body = await answer.json();
                {change}
                asked += 1;
                return new Response(JSON.stringify(body));
            }};
        }}"""
    }


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser of the test's own."""
    with Browser() as one:
        yield one


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device that is well, with a quarter of an hour behind it."""
    require()
    with running(tmp_path_factory.mktemp("page"), past=900, upload_interval="1s") as one:
        yield one


def quiet(browser: Browser, device: Device) -> None:
    """Nothing was asked for elsewhere, and the console is empty."""
    assert {urlsplit(url).netloc for url in browser.requests()} == {urlsplit(device.url).netloc}
    assert browser.logged() == []


def test_what_is_so_now(browser: Browser, device: Device) -> None:
    """The verdict, every uplink with its rates, cores, and the rest, of the board's files."""
    browser.open(device.url)
    browser.until(lambda: browser.text("#word") == "All is well", "the verdict")
    assert browser.driver.title == "All is well \N{EN DASH} belabox-001"
    names = "return [...document.querySelectorAll('#uplinks tbody th')].map((one) => one.innerText)"
    assert browser.run(names) == UPLINKS
    browser.until(lambda: "…" not in browser.text("#uplinks"), "the rates")
    assert "Mbit/s" in browser.text("#uplinks tfoot")
    cores = "return document.querySelectorAll('#cores li').length"
    browser.until(lambda: browser.run(cores) == 8, "the cores")
    for tile, unit in (("temperature", "°C"), ("memory", "GiB"), ("disk", "B/s"), ("cpu", "load")):
        assert unit in browser.text(f"#{tile}")
    assert "ago" in browser.text("#upload")
    browser.until(lambda: "the server" in browser.text("#clock"), "the clock's comparison")
    quiet(browser, device)


def test_charts_have_points(browser: Browser, device: Device) -> None:
    """Each chart has a line, at each of the three times."""
    browser.size(1280, "light")
    browser.open(device.url)
    browser.until(browser.drawn, "the charts")
    assert all(count > 100 for count in browser.run(_PAINTED)[:-1])  # The backlog is new.
    label = "return document.querySelector('#plots [role=img]').ariaLabel"
    assert browser.run(label).startswith("Sending, chart: latest ")
    for seconds, begun in ((7200, 7200), (86400, 14400)):
        browser.run(f"document.querySelector('input[value=\"{seconds}\"]').click()")
        browser.until(browser.drawn, "the charts")
        assert sum(browser.run(_PAINTED)) > 100
        last = parse_qs(urlsplit(browser.requests("query_range")[-1]).query)
        assert int(last["end"][0]) - int(last["start"][0]) <= begun
    quiet(browser, device)


# Keeps the texts that stand on each canvas.
_WRITTEN = """{
  window.written = new Map();
  const { clearRect, fillText } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.clearRect = function (...where) {
    window.written.set(this.canvas, []);
    clearRect.call(this, ...where);
  };
  CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
    window.written.get(this.canvas)?.push(text);
    fillText.call(this, text, ...where);
  };
}"""


def test_axes_of_little(browser: Browser, device: Device) -> None:
    """No two ticks of an axis have the same text, also where there is next to nothing to draw."""
    beforehand = {"source": _WRITTEN}
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", beforehand)
    with_nothing = answers(
        "query_range",
        """
        for (const one of body.series) {
            const little = (_, i) => one.unit === "celsius" ? 53 + (i % 2) / 20 : 0;
            for (const key of ["min", "avg", "max"]) one[key] = one[key]?.map(little);
        }""",
    )
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", with_nothing)
    browser.open(device.url)
    browser.until(browser.drawn, "the charts")
    written = """return [...document.querySelectorAll("#plots canvas")]
        .map((one) => window.written.get(one))"""
    for texts in browser.run(written):
        assert len(texts) >= 3
        assert len(texts) == len(set(texts)), texts


def test_legends_on_a_phone(browser: Browser, device: Device) -> None:
    """They are smaller than what is above them: two lines' names stand beside each other."""
    browser.size(360, "dark")
    browser.open(device.url)
    browser.until(browser.drawn, "the charts")
    size = "return getComputedStyle(document.querySelector('#plots .u-legend td')).fontSize"
    assert browser.run(size) == "12px"


def test_only_what_is_new_is_asked_for(browser: Browser, device: Device) -> None:
    """After the first time, a request for the charts is for the last points."""
    browser.open(device.url)
    browser.until(lambda: len(browser.requests("query_range")) >= 3, "another request")
    spans = [
        int(query["end"][0]) - int(query["start"][0])
        for query in (parse_qs(urlsplit(url).query) for url in browser.requests("query_range"))
    ]
    assert spans[:2] == [900, 900]  # The lines, and the bands.
    assert max(spans[2:]) <= 40
    quiet(browser, device)


def test_nobody_looks(browser: Browser, device: Device) -> None:
    """In a tab that is not seen nothing is asked for; seen again it asks at once."""
    browser.open(device.url)
    browser.until(browser.drawn, "the charts")
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    second = browser.driver.current_window_handle
    browser.open(f"{device.url}api/v1/now")

    def uptime() -> float:
        browser.driver.refresh()
        script = "return JSON.parse(document.body.innerText).health.uptime_seconds"
        return float(browser.run(script))

    begun = uptime()
    browser.until(lambda: uptime() >= begun + 8, "time to pass")
    browser.driver.switch_to.window(first)
    script = (
        "return performance.getEntriesByType('resource').map((one) => [one.name, one.startTime])"
    )
    seen = "return performance.getEntriesByType('visibility-state').at(-1).startTime"
    browser.until(lambda: browser.run("return !document.hidden"), "the tab to be seen")
    times = sorted(time for name, time in browser.run(script) if "/now" in name)
    shown = float(browser.run(seen))
    before = [time for time in times if time < shown]
    assert not before or shown - before[-1] > 5000
    asked = f"{script}.some(([name, time]) => name.includes('/now') && time >= {shown})"
    browser.until(lambda: browser.run(asked), "a request")
    browser.driver.switch_to.window(second)
    browser.driver.close()
    browser.driver.switch_to.window(first)


def test_keyboard(browser: Browser, device: Device) -> None:
    """The time shown is chosen with the arrow keys, and one sees where one is."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.open(device.url)
    browser.until(browser.drawn, "the charts")
    body = browser.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("value") == "900"
    focused.send_keys(Keys.ARROW_RIGHT)
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("value") == "7200"
    assert focused.is_selected()
    outline = "return getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert browser.run(outline) == "solid"
    browser.until(lambda: "&step=60&" in browser.requests("query_range")[-1], "the request")
    quiet(browser, device)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_layout(browser: Browser, device: Device, width: int, theme: str) -> None:
    """Nothing is wider than the window, whose colours are those of the theme.

    Not even with an interface of the longest name that there is.
    """
    browser.size(width, theme)
    browser.open(device.url)
    browser.until(browser.drawn, "the charts")
    browser.run("""
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const { data } = walker.currentNode;
            walker.currentNode.data = data.replace("eth1", "enx0c5b8f279a64");
        }""")
    wide = """return [...document.querySelectorAll("body *")].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
    }).map((one) => one.outerHTML.slice(0, 80))"""
    assert browser.run(wide) == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    colour = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(245, 246, 247)", "dark": "rgb(16, 19, 22)"}[theme]
    quiet(browser, device)


def test_the_theme_changes(browser: Browser, device: Device) -> None:
    """At dusk the lines are drawn anew, in the colours of the night."""
    browser.size(1280, "light")
    browser.open(device.url)
    browser.until(browser.drawn, "the charts")
    browser.size(1280, "dark")
    browser.until(lambda: browser.run(_PAINTED)[0] > 100, "the lines in their new colours")
    quiet(browser, device)


def test_the_server_goes_away_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    """The verdict changes by itself, in words, with its reason; and so it does back."""
    limits = {
        "degraded_threshold": {"pending_metrics": 100_000, "upload_age_seconds": 2},
        "error_threshold": {"pending_metrics": 100_000, "upload_age_seconds": 4},
    }
    retry = {"enabled": False}
    with running(
        tmp_path / "box", past=60, health=limits, upload_interval="500ms", retry=retry
    ) as device:
        browser.open(device.url)
        browser.until(lambda: browser.text("#word") == "All is well", "the verdict")
        device.receive_no_more()
        browser.until(lambda: browser.text("#word") == "Needs attention", "another verdict")
        assert "uploader: no upload for" in browser.text("#reasons")
        assert "refused" in browser.text("#upload")
        browser.until(lambda: "growing by" in browser.text("#backlog"), "the trend")
        device.receive()
        browser.until(lambda: browser.text("#word") == "All is well", "the first verdict")
        assert browser.text("#reasons") == ""
        quiet(browser, device)


def test_the_states_of_sources(browser: Browser, device: Device) -> None:
    """In plain words, with the reason and the cure; foreign text is text. They go when it is well.

    A collector that is well says nothing, unless it leaves something out.
    """
    change = """
        const all = body.health.collectors;
        const set = (name, more) => Object.assign(all[name], more);
        if (asked < 1) {
            set("cpu.temperature", { state: "absent", reason: "no thermal zone" });
            set("disk.io", { state: "hidden", reason: "<b>mode</b>", cure: "Join a group." });
            set("network.traffic", { left_out: ["veth1", "veth2"] });
            set("system.load", { state: "failing", reason: "not three averages" });
            set("system.uptime", { state: null });
        }"""
    states = answers("/now", change)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", states)
    browser.open(device.url)
    hidden = "return document.querySelector('#sources').hidden"
    assert browser.run(hidden)
    browser.until(lambda: not browser.run(hidden), "the states")
    tiles = "return [...document.querySelectorAll('#sources dl > div')].map((one) => one.innerText)"
    shown = {tile.split("\n")[0]: tile.split("\n")[1:] for tile in browser.run(tiles)}
    assert shown == {
        "cpu.temperature": ["Not on this device", "no thermal zone"],
        "disk.io": ["Hidden from the agent", "<b>mode</b>", "What to do: Join a group."],
        "network.traffic": ["Left out: veth1, veth2"],
        "system.load": ["Fails", "not three averages"],
    }
    browser.until(lambda: browser.run(hidden), "that all is well again")


def test_the_fullest_file_system(browser: Browser, device: Device) -> None:
    """Its share as df counts it, what is left, and each that is read-only; foreign text is text."""
    change = """
        const set = (name, mountpoint, value) =>
            body.samples.push({ name: `filesystem.${name}`, tags: { mountpoint }, value, time: 1 });
        body.samples = body.samples.filter((one) => !one.name.startsWith("filesystem."));
        if (asked < 1) {
            set("used_bytes", "/", 3 * 2 ** 30);
            set("available_bytes", "/", 2 ** 30);
            set("used_bytes", "/<b>full</b>", 19 * 2 ** 30);
            set("available_bytes", "/<b>full</b>", 2 ** 30);
            set("used_bytes", "/empty", 0);
            set("available_bytes", "/empty", 0);
            set("readonly", "/", 0);
            set("readonly", "/boot", 1);
        }"""
    full = answers("/now", change)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", full)
    browser.open(device.url)
    browser.until(lambda: "95" in browser.text("#filesystems"), "the share")
    text = browser.text("#filesystems").replace("\N{NO-BREAK SPACE}", " ")
    assert text.split("\n")[1:] == ["95 %", "/<b>full</b> has 1.00 GiB left; /boot is read-only"]
    hidden = "return document.querySelector('#filesystems').hidden"
    browser.until(lambda: browser.run(hidden), "that there is none")


def test_a_backlog_that_drains(browser: Browser, device: Device) -> None:
    """The page says when it will be done, from how fast it falls."""
    change = """body.health.uptime_seconds += 200 + 10 * asked;
        body.health.uploader.last_error = "a slow link";
        body.health.storage.metrics_pending_upload = 90_000 - 1_500 * asked;"""
    falling = answers("/now", change)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", falling)
    browser.open(device.url)
    browser.until(lambda: "uploaded in about" in browser.text("#backlog"), "the time")
    # 1,500 samples in 15 s: the time between two requests, and what is added to it.
    assert re.search(r"uploaded in about 1[2-9] min", browser.text("#backlog"))


def test_a_backlog_that_is_not_known(browser: Browser, device: Device) -> None:
    """While the database is opened the page does not say that everything is uploaded."""
    change = """
        body.health.storage.opening = asked < 1 ? "is being migrated, 4 %" : null;
        body.health.storage.metrics_pending_upload = asked < 1 ? 0 : 90_000;"""
    opening = answers("/now", change)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", opening)
    browser.open(device.url)
    browser.until(lambda: "the database is being migrated" in browser.text("#backlog"), "the words")
    assert "everything is uploaded" not in browser.text("#backlog")
    browser.until(lambda: "90,000 samples" in browser.text("#backlog"), "the number")


def test_what_was_before_a_pause_is_no_rate(browser: Browser, device: Device) -> None:
    """After an hour in a hidden tab, the mean rate of that hour is not shown as the current one."""
    change = """
        if (asked >= 1) body.health.uptime_seconds += 3600;
        for (const one of body.samples) {
            if (asked >= 1) one.time += 3600;
            if (one.name === "network.tx_bytes_total" && asked === 1) one.value += 3600 * 1e12 / 8;
            if (one.name === "network.tx_bytes_total" && asked > 1) one.value = 0;
        }"""
    paused = answers("/now", change)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", paused)
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*query_range*"]})
    browser.open(device.url)
    browser.run("""window.seen = [];
        const uplinks = document.querySelector("#uplinks");
        new MutationObserver(() => seen.push(uplinks.querySelector("tfoot").innerText))
            .observe(uplinks, { subtree: true, childList: true, characterData: true });""")
    browser.until(lambda: len(browser.requests("/now")) >= 3, "the third request")
    browser.until(lambda: browser.run("return seen.length") >= 2, "the figures")
    seen = browser.run("return seen")
    assert any("…" in one for one in seen), seen
    assert not any("Gbit/s" in one for one in seen), seen


def test_a_clock_of_another_day(browser: Browser, device: Device) -> None:
    """The clock's time has its zone; where the device has another date, it is there."""
    zone = {"timezoneId": "Asia/Kolkata"}
    browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", zone)
    browser.open(device.url)
    browser.until(lambda: "GMT+5:30" in browser.text("#clock"), "the zone")
    browser.until(lambda: "GMT+5:30" in browser.text("#points"), "the zone of the charts")
    assert "1970" not in browser.text("#clock")
    change = 'body.health.time.local = "1970-01-01T00:01:00.000Z";'
    before = answers("/now", change)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", before)
    browser.driver.refresh()
    browser.until(lambda: "1 Jan 1970" in browser.text("#clock"), "the date")


def test_what_a_point_is(browser: Browser, device: Device) -> None:
    """A longer time has points of a longer mean, which the page says."""
    browser.open(device.url)
    browser.until(lambda: "mean of 10 s" in browser.text("#points"), "the first")
    browser.run("document.querySelector('input[value=\"86400\"]').click()")
    browser.until(lambda: "mean of 8 min" in browser.text("#points"), "the other")


def test_the_device_goes_away_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    """The page says that its values are old, and later continues by itself."""
    with running(tmp_path / "box", past=60, upload_interval="1s") as device:
        browser.open(device.url)
        browser.until(browser.drawn, "the charts")
        device.stop()
        browser.until(lambda: "does not answer" in browser.text("#silent"), "the warning")
        assert browser.text("#word") == "All is well"
        assert browser.run("return document.body.className") == "old"
        device.start()
        browser.until(lambda: browser.run("return document.body.className") == "", "the answer")
        assert browser.text("#silent") == ""


def test_the_database_is_busy(browser: Browser, device: Device) -> None:
    """Without charts the page still says what is so now, and that there are none."""
    blocked = {"urls": ["*query_range*"]}
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", blocked)
    browser.open(device.url)
    browser.until(lambda: "cannot be loaded" in browser.text("#progress"), "the message")
    assert browser.text("#word") == "All is well"
    browser.until(lambda: "…" not in browser.text("#uplinks"), "the rates")


def test_a_login(browser: Browser, tmp_path: Path) -> None:
    """With a password file, a login opens the whole page; the address may hold a password."""
    logins = tmp_path / "logins"
    logins.write_text("me:secret\n")
    logins.chmod(0o600)
    limits = {"basic_auth_file": str(logins)}
    with running(tmp_path / "box", past=60, health=limits, upload_interval="1s") as device:
        browser.open(device.url.replace("://", "://me:secret@"))
        browser.until(browser.drawn, "the charts")
        browser.until(lambda: len(browser.requests("/now")) >= 1, "another request")
        assert browser.text("#silent") == ""


def test_a_device_that_has_little(browser: Browser, tmp_path: Path) -> None:
    """The page has only the tiles and charts of collected metrics."""
    with running(
        tmp_path / "box", past=0, collectors=["system.uptime"], upload_interval="1s"
    ) as device:
        browser.open(device.url)
        browser.until(lambda: "ago" in browser.text("#upload"), "the first upload")
        browser.until(lambda: browser.text("#progress") == "", "the charts")
        seen = browser.text("main")
        assert "Waiting for upload" in seen
        for absent in ("Uplinks", "Temperature", "Memory", "Disk", "CPU", "NaN", "undefined"):
            assert absent not in seen
        quiet(browser, device)
