"""The live page in a real browser: what a person sees, clicks and hears read out."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from gateway.scheduling.events import BackendLeft
from gateway.scheduling.model import BackendId
from gateway.server.admin import AdminPages
from gateway.server.app import Listener, ListenOptions
from tests.browser.chromium import chromium_path
from tests.browser.scenes import HOSTILE, NOON, Scene, large, troubled, unmet
from tests.telemetry.record_builder import make_record

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

WIDTHS = (1440, 820, 390)


class Visit:
    """One page of a browser that looks at a scene; notes what it asked for and complained of."""

    def __init__(self, page: Page, url: str, scene: Scene, listener: Listener) -> None:
        self.page = page
        self.url = url
        self.scene = scene
        self.listener = listener
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text))

    async def open(self, path: str = "/") -> None:
        await self.page.goto(self.url + path)
        await expect(self.page.locator("#connection")).to_have_attribute("data-tone", "good")
        await expect(self.page.locator("#server-rows tr").first).to_be_visible()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        path = chromium_path()
        started = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        await started.close()


@asynccontextmanager
async def visiting(browser: Browser, scene: Scene, **context: object) -> AsyncIterator[Visit]:
    admin = AdminPages(
        pools=scene.pools, render_metrics=lambda: b"up 1\n", sections=[scene.page.pages]
    )
    listener = Listener(admin.handle, ListenOptions())
    await listener.open()
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(scene.page.feed.run())
        view: BrowserContext = await browser.new_context(**context)  # type: ignore[arg-type]
        view.set_default_timeout(60_000)  # of a machine that others use, too
        try:
            page = await view.new_page()
            visit = Visit(page, f"http://127.0.0.1:{listener.port}", scene, listener)
            yield visit
            assert visit.complaints == []
            assert all(url.startswith(visit.url + "/") for url in visit.asked), visit.asked
        finally:
            await view.close()
            feed.cancel()
            await listener.close()
            scene.driver.stop()


async def test_of_a_server_that_has_never_answered_it_is_told_since_when_and_why(
    browser: Browser,
) -> None:
    scene = troubled()
    unmet(scene)
    async with visiting(browser, scene) as visit:
        await visit.open()
        page = visit.page
        await expect(page.locator("#verdict-headline")).to_have_text("2 of 4 servers are down")
        never = page.locator("#server-rows tr", has_text="gpu-3:8000")
        await expect(never.locator(".pill")).to_have_text("not heard from")
        await expect(never).to_contain_text("for 1 s: Connection refused")
        draining = page.locator("#server-rows tr", has_text="gpu-4:8000")
        await expect(draining.locator(".pill")).to_have_text("draining")


async def test_the_first_look_says_how_the_pool_is(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        page = visit.page
        await expect(page.locator("#verdict")).to_have_attribute("data-tone", "warn")
        await expect(page.locator("#verdict-headline")).to_have_text("1 of 2 servers are down")
        await expect(page.locator(".tile", has_text="Servers in use")).to_contain_text("1 / 2")
        down = page.locator("#server-rows tr", has_text="gpu-2:8000")
        await expect(down.locator(".pill")).to_have_text("down")
        up = page.locator("#server-rows tr", has_text="gpu-1:8000")
        await expect(up.locator(".pill")).to_have_text("open")
        await expect(up).to_contain_text("42 %")
        await expect(up.locator(".slot.active")).to_have_text("lora-a 1")
        await expect(up.locator(".slot.free")).to_have_text("2 free")
        chat = page.locator("#service-rows tr", has_text="chat")
        await expect(chat).to_contain_text("TTFT ≤ 1.00 s, TPOT ≤ 50 ms for 95 %")


@pytest.mark.parametrize(
    ("down", "expected"),
    [
        (
            1,
            [
                "chat misses its objective: 50.0 % met it, the target is 95 %",
                "1 of 3 servers are down",
            ],
        ),
        (
            2,
            [
                "2 of 3 servers are down",
                "chat misses its objective: 50.0 % met it, the target is 95 %",
            ],
        ),
    ],
)
async def test_servers_that_are_down_come_before_what_follows_of_it(
    browser: Browser, down: int, expected: list[str]
) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        script = """async (down) => {
            const { findings } = await import("/assets/verdict.js");
            const state = await (await fetch("/live/state")).json();
            const [pool] = state.pools;
            const usable = { ...pool.backends[0], usable: true, draining: false };
            pool.backends = [0, 1, 2].map((number) => ({ ...usable, usable: number >= down }));
            Object.assign(pool.services[0], { attainment: 0.5, target: 0.95, ended: 100 });
            return findings(state, []).map((found) => found.text);
        }"""
        assert (await visit.page.evaluate(script, down))[:2] == expected


async def test_a_request_is_searched_for_and_explained(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        page = visit.page
        await expect(page.locator("#request-rows tr")).to_have_count(2)
        await page.get_by_role("searchbox", name="Search requests").fill("slow")
        await expect(page.locator("#request-rows tr")).to_have_count(1)
        await page.get_by_role("button", name="slow-one").click()
        dialog = page.get_by_role("dialog", name="Request slow-one")
        await expect(dialog).to_contain_text("Answered by")
        await expect(dialog.get_by_role("row", name="chosen")).to_have_count(1)
        await expect(dialog.get_by_role("row", name=re.compile("gpu-2|gpu-1"))).to_have_count(2)
        await expect(dialog.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile("waiting for a server 100 ms.*to the first token 300 ms")
        )
        await expect(dialog).to_contain_text("TTFT, from dispatch")
        assert page.url.endswith("#request/gw-1")


async def test_an_explanation_can_be_linked_to(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open("/#request/gw-1")
        await expect(visit.page.get_by_role("dialog", name="Request slow-one")).to_be_visible()
        await visit.page.evaluate("location.hash = '#request/long-gone'")
        dialog = visit.page.get_by_role("dialog", name="Request long-gone")
        await expect(dialog).to_contain_text("is not kept any more")
        visit.complaints.clear()  # the browser tells of the 404


async def test_a_refused_request_tells_its_reason(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        await visit.page.get_by_role("button", name="refused-one").click()
        dialog = visit.page.get_by_role("dialog", name="Request refused-one")
        await expect(dialog).to_contain_text("no server could take it in time")


async def test_a_server_is_shown_with_all_its_figures(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        await visit.page.get_by_role("button", name="gpu-1:8000").click()
        dialog = visit.page.get_by_role("dialog", name="Server gpu-1:8000")
        await expect(dialog).to_contain_text("KV cache, as reported42.0 %")
        await dialog.get_by_role("button", name="Close").click()
        await expect(dialog).to_be_hidden()


async def test_the_charts_follow_the_service_that_is_picked(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        await visit.page.get_by_role("button", name="chat", exact=True).click()
        chosen = visit.page.get_by_role("combobox", name="Service in the charts")
        await expect(chosen).to_have_value('["pool","chat"]')
        first = visit.page.locator("#charts figure").first
        await expect(first).to_contain_text("objective 1.00 s")
        await expect(first.locator("canvas")).to_have_count(1)


async def test_the_reason_of_a_slow_request_is_two_clicks_behind_the_link_of_an_alert(
    browser: Browser,
) -> None:
    async with visiting(browser, troubled()) as visit:
        visit.scene.end(make_record(lease_id="gw-3", request_id="quick", ttft_s=0.1))
        await visit.open("/#service/pool/chat")
        page = visit.page
        chosen = page.get_by_role("combobox", name="Service in the charts")
        await expect(chosen).to_have_value('["pool","chat"]')
        await page.get_by_role("button", name="Time to first token: slowest requests").click()
        rows = page.locator("#request-rows tr")
        await expect(rows.nth(0)).to_contain_text("slow-one")
        await expect(rows.nth(1)).to_contain_text("quick")
        await expect(rows).to_have_count(2)  # that of `batch` is not among them
        await page.get_by_role("button", name="slow-one").click()
        dialog = page.get_by_role("dialog", name="Request slow-one")
        await expect(dialog).to_contain_text("Where the time went")
        await dialog.get_by_role("button", name="gpu-1:8000").click()
        await expect(page.get_by_role("dialog", name="Server gpu-1:8000")).to_be_visible()


async def test_names_of_clients_are_text_and_nothing_else(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        row = visit.page.locator("#request-rows tr", has_text="refused-one")
        await expect(row).to_contain_text(HOSTILE)
        await visit.page.get_by_role("button", name="refused-one").click()
        await expect(visit.page.get_by_role("dialog")).to_contain_text(HOSTILE)
        assert await visit.page.title() == "LLM Instance Gateway"
        assert await visit.page.locator("main img, dialog img").count() == 0


async def test_everything_can_be_reached_by_keyboard(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        page = visit.page
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to services")).to_be_focused()
        button = page.get_by_role("button", name="gpu-1:8000")
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(button).to_be_focused()


async def test_tables_and_controls_have_names_for_screen_readers(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        page = visit.page
        for role in ("button", "combobox", "searchbox", "checkbox", "link", "meter"):
            for control in await page.get_by_role(role).all():
                told = await control.aria_snapshot()
                assert re.match(rf"- '?{role} \"[^\"]+\"", told), told
        await expect(page.get_by_role("columnheader", name="Adherence")).to_have_count(1)
        await expect(page.get_by_role("rowheader", name=re.compile("^chat"))).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_width_shows_all_without_scrolling_sideways(
    browser: Browser, scheme: str
) -> None:
    async with visiting(browser, troubled(), color_scheme=scheme) as visit:
        await visit.open()
        for width in WIDTHS:
            await visit.page.set_viewport_size({"width": width, "height": 900})
            needed = await visit.page.evaluate("document.documentElement.scrollWidth")
            assert needed <= width
        background = await visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3]))
        assert (brightness < 3 * 128) is (scheme == "dark")


async def test_the_theme_is_the_viewers_choice_and_remembered(browser: Browser) -> None:
    async with visiting(browser, troubled(), color_scheme="light") as visit:
        await visit.open()
        button = visit.page.get_by_role("button", name="Theme")
        await button.click()
        await button.click()
        await expect(button).to_have_text("Theme: dark")
        await visit.page.reload()
        await expect(visit.page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_a_large_pool_is_changed_in_place(browser: Browser) -> None:
    async with visiting(browser, large()) as visit:
        await visit.open()
        page = visit.page
        await page.get_by_role("button", name="Show all 100").click()
        await page.get_by_role("button", name="Show all 51").click()  # the default one too
        await expect(page.locator("#server-rows tr")).to_have_count(100)
        await expect(page.locator("#service-rows tr")).to_have_count(51)
        await page.evaluate(
            "window.before = [...document.querySelectorAll('#server-rows tr, #service-rows tr')]"
        )
        clock = await page.locator("#connection").text_content()
        visit.scene.wall = NOON + 3_600.0
        await expect(page.locator("#connection")).not_to_have_text(str(clock))
        same = "[...document.querySelectorAll('#server-rows tr, #service-rows tr')]"
        assert await page.evaluate(f"{same}.every((row, n) => row === window.before[n])")


async def test_of_many_servers_those_in_trouble_are_shown_and_any_can_be_found(
    browser: Browser,
) -> None:
    scene = large()
    scene.driver.deliver(BackendLeft(BackendId("http://gpu-077:8000")))
    async with visiting(browser, scene) as visit:
        await visit.open()
        page = visit.page
        rows = page.locator("#server-rows tr")
        await expect(rows).to_have_count(20)
        await expect(rows.first).to_contain_text("gpu-077:8000")
        await expect(page.locator("#server-note")).to_contain_text("100 servers, 20 are shown.")
        await page.get_by_role("searchbox", name="Search servers").fill("GPU-09")
        await expect(rows).to_have_count(10)
        await expect(page.locator("#server-note")).to_contain_text("10 of 100 servers match.")
        await page.get_by_role("searchbox", name="Search servers").fill("gpu-500")
        await expect(page.locator("#server-note")).to_contain_text("None of the 100 servers")
        await page.get_by_role("searchbox", name="Search servers").fill("")
        await page.get_by_role("combobox", name="Order of servers").select_option("as configured")
        await expect(rows.first).to_contain_text("gpu-000:8000")
        await expect(page.get_by_role("searchbox", name="Search services")).to_be_visible()


async def test_a_few_servers_need_no_search_and_keep_their_order(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        rows = visit.page.locator("#server-rows tr")
        await expect(rows.nth(0)).to_contain_text("gpu-1:8000")  # though gpu-2 is down
        await expect(visit.page.get_by_role("searchbox", name="Search servers")).to_be_hidden()
        await expect(visit.page.locator("#server-note")).to_be_hidden()


async def test_rows_stay_where_they_are_while_the_pointer_is_on_them(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        page = visit.page
        await page.locator("#request-rows tr").first.hover()
        visit.scene.end(make_record(lease_id="gw-3", request_id="newer"))
        clock = await page.locator("#connection").text_content()
        visit.scene.wall += 60.0
        await expect(page.locator("#connection")).not_to_have_text(str(clock))
        await expect(page.locator("#request-rows tr")).to_have_count(2)
        await page.locator("#verdict").hover()
        await expect(page.locator("#request-rows tr")).to_have_count(3)


async def test_a_lost_connection_is_told(browser: Browser) -> None:
    async with visiting(browser, troubled()) as visit:
        await visit.open()
        await visit.listener.close()
        await expect(visit.page.locator("#connection")).to_contain_text("Connection lost")
        visit.complaints.clear()  # the browser tells of it too
