"""A headless Chromium with a profile of its own, driven over its DevTools protocol. It resolves nothing
but loopback."""

import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from websockets.sync.client import connect

from . import PATIENCE, eventually

OPTIONS = [
    "--headless",
    # Chromium does not start as root with its sandbox; the pages are those of the tests.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
]


class Browser:
    def __init__(self):
        self._open = ExitStack()
        # Chromium writes there until its last process has ended.
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(self._open.enter_context(folder))
        log = (folder / "log").open("wb")
        # A session of its own: with it end the processes that Chromium starts.
        self._process = subprocess.Popen(
            ["chromium", *OPTIONS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )
        log.close()
        self._open.callback(self._end)
        try:
            self._page = self._connect(folder)
        except BaseException:
            print((folder / "log").read_text(errors="replace"))
            self.close()
            raise
        self._numbers = itertools.count(1)
        self.events = []
        self.call("Network.enable")

    def close(self):
        self._open.close()

    def _end(self):
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sent)
                self._process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def call(self, method, **arguments):
        """The result of a method; events that come before it are kept."""
        number = next(self._numbers)
        self._page.send(json.dumps({"id": number, "method": method, "params": arguments}))
        deadline = time.monotonic() + PATIENCE
        while True:
            message = json.loads(self._page.recv(deadline - time.monotonic()))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, url):
        told = self.call("Page.navigate", url=url)
        assert "errorText" not in told, told

    def evaluate(self, expression):
        """The value of an expression in the page, awaited."""
        told = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def _connect(self, folder):
        file = folder / "profile/DevToolsActivePort"

        def port():
            assert self._process.poll() is None, "Chromium has ended"
            text = file.read_text() if file.exists() else ""
            return text.split("\n")[0] if "\n" in text else None

        port = eventually("Chromium listens", port)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
            page = next(one for one in json.load(answer) if one["type"] == "page")
        url = page["webSocketDebuggerUrl"]
        return self._open.enter_context(connect(url, max_size=None, open_timeout=PATIENCE))
