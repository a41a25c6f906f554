"""The live page in a browser, beside a server under load."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright
from support.messages import PROMPT_MARKER, inference
from support.server_process import Connection, ServerProcess, StartServer
from support.slots import occupied
from support.submit_stream import SubmitStream

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH; name one in the environment variable CHROMIUM"
)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    options = ("--replay", "--policy", "ranking", "--max-sequences", "4", "--operations-port", "0")
    return start_server(*options)


class Watched:
    """A page, and what must not happen on it."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self._origin = origin
        page.on("console", lambda message: self.problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", lambda request: self._check(request.url))

    def _check(self, url: str) -> None:
        if not url.startswith((self._origin, "data:")):
            self.problems.append(f"a request to {url}")

    async def open(self) -> None:
        await self.page.goto(self._origin)
        await self.page.wait_for_selector("#state[data-state=serving]")

    async def tile(self, name: str) -> str:
        return await self.page.inner_text(f"#tile-{name} .number")

    async def until_tile(self, name: str, text: str) -> None:
        await self.page.wait_for_function(
            "([id, text]) => document.querySelector(`#tile-${id} .number`).textContent === text",
            arg=[name, text],
        )


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
async def test_the_page_shows_a_server_under_load(
    browser: Browser, server: ServerProcess, width: int, scheme: str
) -> None:
    page = await browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    watched = Watched(page, f"http://{server.listening['operations_address']}/")
    await watched.open()
    assert await watched.tile("waiting") == "0"
    assert await page.inner_text("#queue tbody") == "Nothing waits."

    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            ids = [f"w{n}" for n in range(35)]
            await stream.send(
                *(inference(name, words=2 + n * 11 % 50, output=2 + n % 5) for n, name in enumerate(ids))
            )
            await stream.until_all("queued", ids)
            await watched.until_tile("waiting", "35")
            assert await watched.tile("running") == "4"
            rows = await page.eval_on_selector_all(
                "#queue tbody tr", "rows => rows.map(row => row.dataset.score)"
            )
            scores = [float(score) for score in rows]
            assert len(scores) == 30
            assert scores == sorted(scores, reverse=True)
            assert len(await page.query_selector_all("#batch tbody tr")) == 4
            assert "first 30 of 35" in await page.inner_text("#queue-note")
        await stream.until_all("finished", ids)
        await watched.until_tile("waiting", "0")
    await watched.until_tile("running", "0")
    assert (await watched.tile("ttft")).endswith(("ms", "s"))
    assert -1 <= float(await watched.tile("tau")) <= 1
    assert "35" in await page.inner_text("#tile-requests")

    painted = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(x => x)"
    )
    for canvas in await page.query_selector_all("canvas"):
        assert await canvas.evaluate(painted), "an empty chart"
        assert await canvas.get_attribute("aria-label")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width, "the page is too wide"
    assert PROMPT_MARKER not in await page.content()
    assert watched.problems == []


async def test_the_page_says_so_when_the_server_is_gone(browser: Browser, server: ServerProcess) -> None:
    page = await browser.new_page()
    watched = Watched(page, f"http://{server.listening['operations_address']}/")
    await watched.open()
    assert await page.is_hidden("#lost")
    assert await asyncio.to_thread(server.stop) == 0
    await page.wait_for_selector("#lost:not([hidden])")
    assert "does not answer" in await page.inner_text("#lost")
