"""The pages in a real browser: no request to another host, no error on the console, news without a reload, narrow screens."""

import contextlib
import itertools
import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from websockets.sync.client import ClientConnection, connect

from server.app import create_app
from server.database import Database

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="NO BROWSER: install chromium to test the pages (apt-get install chromium)"
)

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0 --window-size=1280,700"
)


class Browser:
    """One tab over the DevTools protocol, with all that it asked for and complained about."""

    def __init__(self, tab: ClientConnection) -> None:
        self._tab = tab
        self._ids = itertools.count(1)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._tab.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._tab.recv(timeout=20))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message["method"], message["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            self.complaints.append(f"{params['response']['status']} {params['response']['url']}")
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.complaints.append(f"not loaded: {params['errorText']}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])

    def evaluate(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, url: str, ready: str = "true") -> None:
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(url)} && Boolean({ready})")

    def wait(self, script: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < end, f"still not true: {script}; {self.complaints}"
            time.sleep(0.1)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    assert CHROMIUM
    command = [CHROMIUM, *OPTIONS.split(), f"--user-data-dir={tmp_path / 'profile'}", "about:blank"]
    with (tmp_path / "chromium.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        announced = tmp_path / "profile/DevToolsActivePort"
        end = time.monotonic() + 30
        while not (announced.exists() and announced.read_text().count("\n")):
            assert process.poll() is None, (tmp_path / "chromium.log").read_text()[-2000:]
            assert time.monotonic() < end, "the browser did not start"
            time.sleep(0.05)
        port = announced.read_text().split()[0]
        (tab,) = (page for page in httpx.get(f"http://127.0.0.1:{port}/json").json() if page["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Browser(connection)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def serve(database_url: str) -> Iterator[Callable[[str], str]]:
    """Starts a coordinator under a prefix; its address."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(contextlib.closing(Database(database_url)))

        def start(prefix: str) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            app = create_app(database, root_path=prefix)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(20)

            stack.callback(stop)
            while not server.started:
                time.sleep(0.02)
            return f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"

        yield start


class Campaign:
    """A campaign filled over the API."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=f"{address}/api/v1", timeout=20)
        self._worker = str(uuid.uuid4())
        self._http.post("/workers", json={"worker": self._worker, "name": "node-1/gpu0-" + "long-" * 20})
        document = {
            "name": "seen-" + "x" * 50,
            "base": {"data": "coco128.yaml", "model": "yolov5n", "epochs": 3},
            "evolve": {"strategy": "yolov5-2021", "seed": 1},
            "budget": {"candidates": 30},
        }
        self.name: str = self._http.post("/campaigns", json=document).raise_for_status().json()["name"]

    def lease(self) -> dict[str, Any]:
        ask = {"request_id": str(uuid.uuid4()), "worker": self._worker}
        lease: dict[str, Any] = self._http.post("/leases", json=ask).raise_for_status().json()["leases"][0]
        return lease

    def run(self, map50: float) -> None:
        lease = self.lease()
        metrics = {"precision": map50, "recall": map50, "map50": map50, "map50_95": map50 / 2, "val_box_loss": 0.1}
        epochs = [{"epoch": epoch, "metrics": metrics} for epoch in (1, 2, 3)]
        self._http.post(f"/leases/{lease['token']}/epochs", json={"epochs": epochs}).raise_for_status()
        body = {
            "metrics": metrics,
            "fitness": 0.1 * map50 + 0.9 * map50 / 2,
            "hyp_hash": lease["hyp_hash"],
            "seconds": 1,
            "epochs": 3,
        }
        path = f"/candidates/{lease['candidate']}/attempts/{lease['token']}/result"
        self._http.put(path, json=body).raise_for_status()


def test_the_pages_ask_no_other_host_and_nothing_complains(browser: Browser, serve: Callable[[str], str]) -> None:
    address = serve("/hypevolve")
    browser.open(f"{address}/")
    assert "No campaign yet" in browser.evaluate("document.body.innerText")
    campaign = Campaign(address)
    for step in range(14):
        campaign.run(0.4 + 0.01 * step)
    campaign.lease()
    home = f"{address}/c/{campaign.name}"
    browser.open(f"{address}/")
    browser.open(f"{address}/workers")
    browser.open(f"{home}/candidates/5")
    browser.open(home)
    browser.evaluate("document.getElementById('evolve').scrollIntoView()")
    browser.wait("document.querySelector('img.sheet').naturalWidth > 1000")
    browser.open(f"{address}/docs", ready="document.querySelectorAll('.opblock').length > 10")
    browser.evaluate("document.querySelector('.opblock-summary-control').click()")
    browser.wait("document.querySelectorAll('.opblock.is-open').length > 0")
    time.sleep(0.5)
    browser.call("Page.getLayoutMetrics")  # whatever was still on its way has been noted now
    ours = urlsplit(address).netloc
    others = [url for url in browser.asked if urlsplit(url).netloc != ours and not url.startswith(("data:", "about:", "blob:"))]
    assert len(browser.asked) > 20
    assert others == []
    assert browser.complaints == []


def test_a_new_best_appears_without_a_reload(browser: Browser, serve: Callable[[str], str]) -> None:
    address = serve("")
    campaign = Campaign(address)
    campaign.run(0.5)
    browser.open(f"{address}/c/{campaign.name}", ready="document.getElementById('live').textContent === 'live'")
    browser.evaluate(
        "window.kept = true; window.scrollTo(0, 300); document.querySelector('#best a.button').focus({preventScroll: true})"
    )
    assert any(url.endswith("/events/stream") for url in browser.asked)
    campaign.run(0.6)
    browser.wait("document.querySelector('#best .hero').textContent === '0.3300'")
    assert browser.evaluate("window.kept === true")
    assert browser.evaluate("window.scrollY") == 300
    assert browser.evaluate("document.activeElement.textContent") == "hyp_evolved.yaml"
    assert browser.complaints == []


def test_nothing_is_wider_than_a_narrow_screen(browser: Browser, serve: Callable[[str], str]) -> None:
    address = serve("")
    browser.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(f"{address}/")
    assert browser.evaluate("document.documentElement.scrollWidth") == 400
    campaign = Campaign(address)
    campaign.run(0.5)
    campaign.run(0.4)
    campaign.lease()
    for path in ("/", "/workers", f"/c/{campaign.name}", f"/c/{campaign.name}/candidates/1", "/c/" + "n" * 60):
        browser.open(address + path)
        assert browser.evaluate("document.documentElement.scrollWidth") == 400, path
        marks = "[...document.querySelectorAll('svg.chart, svg.chart text')]"
        wide = f"Math.max(0, ...{marks}.map(e => e.getBoundingClientRect().right))"
        assert browser.evaluate(wide) <= 400, path
    browser.open(f"{address}/c/{campaign.name}/candidates/1")
    assert browser.evaluate("document.querySelector('svg.chart').getBoundingClientRect().width") > 300
