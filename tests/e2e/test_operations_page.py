"""The Operations page in Chromium, on a real Airflow: with data, without, while a database fails, while it is slow.

The screenshots are in ``.local/screenshots``. ``make screenshots`` copies two of them for the README.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote_plus, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import expect, sync_playwright

from dev.stack import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Page, Request, Route, ViewportSize

    from dev.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

VIEWS = {
    "overview": "Overview",
    "market": "Market data",
    "clicks": "Clicks",
    "telemetry": "Telemetry",
    "analytics": "Analytics",
    "kpis": "KPIs",
}

DATA = re.compile(r"/api/operations/(?!static/)")
"""Requests for data, without the page's own files."""

PHONE: ViewportSize = {"width": 390, "height": 844}
SCREEN: ViewportSize = {"width": 1280, "height": 900}

MARKUP = '<img src=x onerror="globalThis.hacked = true">'

TEXTS = {
    "description",
    "symbol",
    "name",
    "text",
    "error",
    "lastError",
    "event",
    "eventType",
    "hireId",
    "reason",
    "impact",
}
"""Keys whose values come from outside."""

SCREENSHOTS = REPOSITORY / ".local/screenshots"

CI = bool(os.environ.get("CI"))

PATIENCE = 120_000
"""Time limit of a wait, in milliseconds, for a busy machine."""


def chromium() -> str | None:
    """Path of a Chromium; None for the one that Playwright installs. CI installs it where it may."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if not (path := next(filter(None, map(shutil.which, names)), None)) and CI and os.geteuid() == 0:
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "--quiet", *command], check=False)
        path = shutil.which("chromium")
    return path


@pytest.fixture(scope="module")
def profile() -> Iterator[BrowserContext]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        executable = chromium()
        if executable is None and not Path(playwright.chromium.executable_path).exists():
            reason = "There is no Chromium. Install it: apt install chromium, or: playwright install chromium"
            if CI:
                pytest.fail(reason)
            pytest.skip(reason)
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser.new_context(viewport=SCREEN, timezone_id="UTC", color_scheme="light")
        browser.close()


@dataclass
class Visit:
    """A page of Airflow's UI, and what happened in it."""

    page: Page
    url: str
    messages: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, path: str = "/plugin/operations") -> None:
        self.page.goto(f"{self.url}{path}", wait_until="commit")
        expect(self.page.locator(".ops")).to_be_visible()

    def choose(self, title: str) -> None:
        self.page.get_by_role("navigation", name="Views").get_by_role("link", name=title, exact=True).click()
        expect(self.page).to_have_title(f"{title} - Operations")

    def wait_until_loaded(self) -> None:
        expect(self.page.locator(".ops-loading")).to_have_count(0)
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    def findings(self) -> list[str]:
        """What axe finds wrong with the page, apart from Airflow's own parts."""
        violations = Axe().run(self.page, context=".ops").response["violations"]
        return [f"{each['id']}: {node['html']}" for each in violations for node in each["nodes"]]

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.mouse.move(0, 0)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@contextmanager
def visit(profile: BrowserContext, stack: Stack, *, zone: str = "UTC", messages: bool = True) -> Iterator[Visit]:
    """Open a new tab. At the end, there is no message in its console, and no request to another host.

    Args:
        profile: The browser's profile, whose cache has Airflow's own files.
        stack: The Airflow.
        zone: Time zone that the user chose in Airflow.
        messages: Whether messages in the console are an error; the browser itself reports failed requests there.
    """
    page = profile.new_page()
    page.add_init_script(f"localStorage.setItem('timezone', {json.dumps(json.dumps(zone))})")
    page.set_default_timeout(PATIENCE)
    visited = Visit(page, stack.airflow_url)

    def on_message(message: ConsoleMessage) -> None:
        visited.messages.append(f"{message.type}: {message.text}")

    def on_error(error: Error) -> None:
        visited.messages.append(f"exception: {error}")

    def on_request(request: Request) -> None:
        visited.hosts.add(urlsplit(request.url).netloc)

    page.on("console", on_message)
    page.on("pageerror", on_error)
    page.on("request", on_request)
    yield visited
    page.close()
    assert visited.hosts - {""} == {urlsplit(stack.airflow_url).netloc}
    own = [text for text in visited.messages if messages or not text.startswith("error: Failed to load resource")]
    assert own == []


def is_dark(page: Page, dark: bool) -> None:
    """Switch the theme as Airflow does."""
    page.evaluate("dark => { document.documentElement.className = dark ? 'dark' : 'light' }", dark)


class TestWithData:
    @pytest.mark.parametrize(("view", "title"), VIEWS.items())
    def test_view_is_accessible_in_both_themes_and_fits_a_phone(
        self, profile: BrowserContext, stack: Stack, view: str, title: str
    ) -> None:
        with visit(profile, stack) as visited:
            visited.open(f"/plugin/operations?view={view}&symbol=BTCUSD")
            visited.wait_until_loaded()

            expect(visited.page).to_have_title(f"{title} - Operations")
            assert visited.page.locator(".ops-failure").all_inner_texts() == []
            visited.screenshot(f"operations-{view}")
            assert visited.findings() == []
            is_dark(visited.page, dark=True)
            visited.screenshot(f"operations-{view}-dark")
            assert visited.findings() == []
            visited.page.set_viewport_size(PHONE)
            visited.screenshot(f"operations-{view}-phone")
            page = visited.page.locator(".ops-page")
            assert page.evaluate("page => page.scrollWidth - page.clientWidth") == 0

    def test_overview_shows_every_dag_with_its_history(self, profile: BrowserContext, stack: Stack) -> None:
        with visit(profile, stack) as visited:
            visited.open()
            visited.wait_until_loaded()

            rows = visited.page.get_by_role("table", name="DAGs").get_by_role("row")
            expect(rows).to_have_count(11)
            strip = visited.page.get_by_role("group", name="click_rollups, last 14 days")
            assert strip.locator("[data-cell]").count() == 14
            expect(visited.page.locator(".ops-sentence")).to_contain_text("Checked")

    def test_keyboard_moves_in_a_strip_shows_and_hides_the_tooltip(self, profile: BrowserContext, stack: Stack) -> None:
        with visit(profile, stack) as visited:
            visited.open()
            visited.wait_until_loaded()
            cells = visited.page.get_by_role("group", name="click_rollups, last 14 days").locator("[data-cell]")

            cells.last.focus()
            visited.page.keyboard.press("ArrowLeft")
            expect(cells.nth(12)).to_be_focused()
            expect(visited.page.locator(".ops-tip")).to_have_text(cells.nth(12).get_attribute("aria-label") or "")
            visited.page.keyboard.press("Escape")
            expect(visited.page.locator(".ops-tip")).to_have_count(0)
            visited.page.keyboard.press("Home")
            expect(cells.first).to_be_focused()
            assert [cells.nth(index).get_attribute("tabindex") for index in (0, 12, 13)] == ["0", "-1", "-1"]

    def test_times_are_in_the_zone_of_airflow_and_in_utc_on_hover(self, profile: BrowserContext, stack: Stack) -> None:
        with visit(profile, stack, zone="Asia/Tokyo") as visited:
            visited.open("/plugin/operations?view=market")
            visited.wait_until_loaded()

            time = visited.page.get_by_role("table", name="Recent runs").locator("time").first
            expect(visited.page.locator(".ops-head")).to_contain_text("Times in Asia/Tokyo")
            utc = (time.get_attribute("datetime") or "")[:16].replace("T", " ")
            assert time.inner_text() != utc
            time.hover()
            expect(visited.page.locator(".ops-tip")).to_contain_text(f"{utc}:")
            expect(visited.page.locator(".ops-tip")).to_contain_text("UTC")

    def test_home_and_the_pages_of_a_dag_and_a_run_show_their_part(self, profile: BrowserContext, stack: Stack) -> None:
        run = stack.airflow.runs("ohlcv_aggregation")[-1]["dag_run_id"]
        places = {
            "home": ("/", "Checked"),
            "dag": ("/dags/ohlcv_aggregation/plugin/dag-operations", "Figures"),
            "run": (f"/dags/ohlcv_aggregation/runs/{run}/plugin/run-operations", "ohlcv.bars"),
        }
        with visit(profile, stack) as visited:
            for place, (path, text) in places.items():
                visited.open(path)
                visited.wait_until_loaded()
                expect(visited.page.locator(".ops")).to_contain_text(text)
                assert visited.page.locator(".ops-failure").all_inner_texts() == []
                assert visited.findings() == []
                visited.screenshot(f"operations-on-{place}")


class TestWithoutData:
    def test_views_say_that_there_is_no_data_and_why(self, profile: BrowserContext, stack: Stack) -> None:
        def emptied(route: Route) -> None:
            response = route.fetch()
            route.fulfill(response=response, json=empty(response.json()))

        with visit(profile, stack) as visited:
            visited.page.route(DATA, emptied)
            visited.open()
            for title in VIEWS.values():
                visited.choose(title)
                visited.wait_until_loaded()
                expect(visited.page.locator(".ops-empty").first).to_be_visible()
                assert visited.page.locator(".ops-failure").count() == 0
                assert visited.findings() == []


def empty(value: Any) -> Any:
    """A response of the same shape without data: no items, no series, no counts."""
    if isinstance(value, dict):
        return {
            key: 0 if key == "total" else each if key in {"days", "months"} else empty(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [None] * len(value) if value and not isinstance(value[0], dict | list | str) else []
    return value


class TestFailures:
    def test_views_say_what_failed_and_recover(self, profile: BrowserContext, stack: Stack) -> None:
        detail = "PostgreSQL at connection market_db refused the connection. Check that the server runs."

        def refused(route: Route) -> None:
            route.fulfill(status=503, json={"detail": detail, "reason": "unavailable"})

        with visit(profile, stack, messages=False) as visited:
            visited.page.route(DATA, refused)
            visited.open()
            for title in VIEWS.values():
                visited.choose(title)
                visited.wait_until_loaded()
                failure = visited.page.get_by_role("alert").first
                expect(failure).to_contain_text("The database is not available")
                expect(failure).to_contain_text(detail)
                assert visited.findings() == []
            visited.screenshot("operations-failed")

            visited.choose("Overview")
            visited.page.unroute(DATA)
            visited.page.get_by_role("button", name="Try again").click()
            expect(visited.page.get_by_role("table", name="DAGs")).to_be_visible()
            expect(visited.page.get_by_role("alert")).to_have_count(0)

    def test_view_of_a_locked_table_says_so_and_recovers(
        self, profile: BrowserContext, stack: Stack, products: psycopg.Connection
    ) -> None:
        with visit(profile, stack, messages=False) as visited:
            with products.transaction():
                products.execute("lock table public.click_rollups in access exclusive mode")
                # No other test has this range in the browser's cache.
                visited.open("/plugin/operations?view=clicks&days=90")
                failure = visited.page.get_by_role("alert").first
                expect(failure).to_contain_text("clicks_db did not respond in time")

            visited.page.get_by_role("button", name="Try again").first.click()
            expect(visited.page.get_by_role("alert")).to_have_count(0)

    def test_freshness_stays_visible_without_the_run_history(self, profile: BrowserContext, stack: Stack) -> None:
        with visit(profile, stack, messages=False) as visited:
            visited.page.route(
                re.compile("/ui/calendar/"), lambda route: route.fulfill(status=404, json={"detail": "Not Found"})
            )
            visited.open()
            visited.wait_until_loaded()

            expect(visited.page.get_by_role("alert")).to_contain_text("The run history is not available")
            expect(visited.page.get_by_role("table", name="DAGs").get_by_role("row")).to_have_count(11)

    def test_products_that_are_not_connected_are_no_failure(self, profile: BrowserContext, stack: Stack) -> None:
        detail = "The Airflow connection clicks_db does not exist."
        with visit(profile, stack, messages=False) as visited:
            visited.page.route(
                re.compile("/api/operations/clicks/"),
                lambda route: route.fulfill(status=404, json={"detail": detail, "reason": "not_connected"}),
            )
            visited.open("/plugin/operations?view=clicks")

            expect(visited.page.locator(".ops-empty").first).to_contain_text("This product is not connected")
            expect(visited.page.get_by_role("alert")).to_have_count(0)

    def test_page_shows_that_it_loads_while_a_response_is_slow(self, profile: BrowserContext, stack: Stack) -> None:
        held: list[Route] = []
        released = False

        def hold(route: Route) -> None:
            if released:
                route.continue_()
            else:
                held.append(route)

        with visit(profile, stack) as visited:
            visited.page.route(re.compile("/api/operations/overview"), hold)
            visited.open()
            expect(visited.page.get_by_role("status", name="Loading")).to_be_visible()
            assert visited.findings() == []

            released = True
            for route in held:
                route.continue_()
            expect(visited.page.get_by_role("table", name="DAGs")).to_be_visible()

    def test_expired_login_goes_to_the_login_page_and_back(self, profile: BrowserContext, stack: Stack) -> None:
        with visit(profile, stack, messages=False) as visited:
            visited.page.route(
                re.compile("/api/operations/clicks/"),
                lambda route: route.fulfill(status=401, json={"detail": "Log in.", "reason": "login"}),
                times=1,
            )
            with visited.page.expect_request(re.compile("/api/v2/auth/login")) as request:
                visited.page.goto(f"{visited.url}/plugin/operations?view=clicks&days=14")

            asked = parse_qs(urlsplit(request.value.url).query)
            assert asked["next"] == [f"{visited.url}/plugin/operations?view=clicks&days=14"]
            expect(visited.page).to_have_url(re.compile("view=clicks"))
            expect(visited.page.locator(".ops")).to_be_visible()


class TestSafety:
    def test_html_in_data_is_shown_as_text(self, profile: BrowserContext, stack: Stack) -> None:
        def marked(route: Route) -> None:
            # The page asks for the symbol that it was given.
            response = route.fetch(url=route.request.url.replace(quote_plus(MARKUP), ""))
            route.fulfill(response=response, json=mark(response.json()))

        with visit(profile, stack) as visited:
            visited.page.route(DATA, marked)
            visited.open()
            for title in VIEWS.values():
                visited.choose(title)
                visited.wait_until_loaded()
                if title != "Clicks":
                    expect(visited.page.locator(".ops")).to_contain_text(MARKUP)
            assert visited.page.evaluate("globalThis.hacked") is None
            assert visited.page.locator(".ops img").count() == 0


def mark(value: Any, key: str = "") -> Any:
    """The same response with HTML in every text from outside."""
    if isinstance(value, dict):
        return {name: mark(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [mark(each, key) for each in value]
    return f"{value}{MARKUP}" if key in TEXTS and isinstance(value, str) else value


def test_page_polls_only_while_it_is_visible(profile: BrowserContext, stack: Stack) -> None:
    with visit(profile, stack) as visited:
        requests: list[str] = []

        def count(request: Request) -> None:
            if "/operations/clicks/" in request.url:
                requests.append(request.url)

        visited.page.on("request", count)
        visited.page.clock.install()
        visited.open("/plugin/operations?view=clicks")
        visited.wait_until_loaded()
        first = len(requests)
        visited.page.clock.run_for(31_000)
        visible = len(requests)

        hide(visited.page, hidden=True)
        visited.page.clock.run_for(300_000)
        hidden = len(requests)
        hide(visited.page, hidden=False)
        with visited.page.expect_request(re.compile("/operations/clicks/")):
            visited.page.clock.run_for(1_000)

        assert visible > first
        assert hidden - visible <= 2  # one more of each list: its timer was set before


def hide(page: Page, *, hidden: bool) -> None:
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )
