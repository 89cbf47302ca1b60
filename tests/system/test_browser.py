"""The API reference as a reader sees it: in a headless Chromium, from the disk, offline."""

import shutil
from pathlib import Path

import api
import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

import jlstm

pytestmark = pytest.mark.browser
# What Chromium is told so that it runs as root, and asks nothing of the network by itself.
OPTIONS = "headless no-sandbox disable-gpu disable-background-networking disable-component-update"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the pages."""
    folder = tmp_path_factory.mktemp("site")
    api.main(str(folder))
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser; a machine without one fails the test."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driver, "install chromium and chromedriver (Debian's chromium-driver)"
    options = ChromeOptions()
    options.binary_location = chromium
    for option in OPTIONS.split():
        options.add_argument(f"--{option}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(driver)) as chrome:
        chrome.set_window_size(1440, 900)
        yield chrome


def address(page: Path):
    return page.resolve().as_uri()


def test_every_page_opens_without_the_network_or_an_error(site, browser):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        browser.get(address(page))
        heading = browser.find_element(By.TAG_NAME, "h1").text
        name = page.relative_to(site).with_suffix("").as_posix().replace("/", ".")
        assert heading == ("jlstm" if name == "index" else name)  # the index leads on to jlstm
        loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        assert all(
            source.startswith(("file:", "data:")) for source in browser.execute_script(loaded)
        )
        assert browser.get_log("browser") == []


def test_the_equations_stand_line_by_line(site, browser):
    browser.get(address(site / "jlstm.html"))
    equations = browser.find_element(By.CSS_SELECTOR, "#cell .docstring > pre")
    lines = equations.text.splitlines()
    assert lines == [line.strip() for line in (jlstm.cell.__doc__ or "").splitlines()[2:5]]
    assert lines[1] == "c_t = σ(f) ⊙ c_tm1 + σ(i) ⊙ tanh(g)"
    assert equations.is_displayed()
    height = "return parseFloat(getComputedStyle(arguments[0]).lineHeight)"
    assert equations.size["height"] >= len(lines) * browser.execute_script(height, equations)


def test_no_equation_or_example_is_cut_off(site, browser):
    wide = """return [...document.querySelectorAll('.docstring pre')]
        .filter(pre => pre.scrollWidth > pre.clientWidth).map(pre => pre.textContent)"""
    for page in sorted(site.rglob("*.html")):
        browser.get(address(page))
        assert browser.execute_script(wide) == [], page


def test_the_search_leads_to_what_was_asked_for(site, browser):
    browser.get(address(site / "jlstm.html"))
    browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("lyapunov spectrum")
    found = ".search-result a"
    WebDriverWait(browser, 20).until(lambda at: at.find_elements(By.CSS_SELECTOR, found))
    browser.find_element(By.CSS_SELECTOR, found).click()
    place = "jlstm/gradients.html#lyapunov_spectrum"
    WebDriverWait(browser, 20).until(lambda at: at.current_url.endswith(place))
    assert browser.find_element(By.ID, "lyapunov_spectrum").is_displayed()


def test_the_search_finds_nothing_where_there_is_nothing(site, browser):
    browser.get(address(site / "jlstm.html") + "?search=zyzzyva")
    told = "No search results"
    WebDriverWait(browser, 20).until(lambda at: told in at.find_element(By.TAG_NAME, "main").text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_follow_the_readers_colours(scheme, site, browser):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(address(site / "jlstm.html"))
    paper = brightness(browser, browser.find_element(By.TAG_NAME, "body"), "backgroundColor")
    for selector in ("#cell .docstring > p", "#cell .docstring > pre", "#cell .docstring .n"):
        ink = brightness(browser, browser.find_element(By.CSS_SELECTOR, selector), "color")
        assert (ink > paper + 100) if scheme == "dark" else (ink < paper - 100)


def brightness(browser, element, property_name):
    """The mean of red, green and blue, 0 to 255."""
    colour = f"return getComputedStyle(arguments[0]).{property_name}.match(/[0-9.]+/g)"
    return sum(map(float, browser.execute_script(colour, element)[:3])) / 3
