"""Chromium without a window, driven over the DevTools protocol by the standard library alone.

Messages are JSON that ends with a zero byte, on the file descriptors 3 and 4 of the browser
(--remote-debugging-pipe), so that no port and no web socket is needed.
"""

import base64
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new --no-sandbox --remote-debugging-pipe --use-angle=swiftshader "
    "--enable-unsafe-swiftshader --no-first-run --disable-extensions "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --mute-audio --force-color-profile=srgb --hide-scrollbars"
).split()
KEYS = {" ": "Space", "ArrowLeft": "ArrowLeft", "ArrowRight": "ArrowRight", "Tab": "Tab"}
CODES = {" ": 32, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}


def find() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page; a context manager.

    Attributes:
      errors: uncaught exceptions, console errors and violations of the page's policy.
      requests: addresses that the page asked for, other than its own and data: and blob: ones.
    """

    def __init__(self, flags: tuple[str, ...] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="genhmr-browser-",
            ignore_cleanup_errors=True,  # the browser may still write
        )
        inward, self._out = os.pipe()
        self._in, outward = os.pipe()
        command = [str(find()), f"--user-data-dir={self._folder.name}", *FLAGS, *flags]
        script = f'exec "$@" 3</dev/fd/{inward} 4>/dev/fd/{outward}'
        self._process = subprocess.Popen(
            ["sh", "-c", script, "sh", *command, "about:blank"],
            pass_fds=(inward, outward),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inward)
        os.close(outward)
        self._ids, self._session, self._rest = itertools.count(1), None, b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(info["targetId"] for info in targets if info["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def call(self, method: str, **params: Any) -> dict:
        """Send a command, and return its result.

        Raises:
          RuntimeError: the browser refused it.
        """
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self, seconds: float = 60) -> dict:
        """The next message of the browser."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            if not (more := os.read(self._in, 1 << 16)):
                raise RuntimeError("the browser ended")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        """Keep what an event says about errors and requests."""
        params, method = event.get("params", {}), event.get("method")
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if params["type"] != "Document" and not url.startswith(("data:", "blob:")):
                self.requests.append(url)

    def open(self, path: os.PathLike, width: int, height: int, **media: str) -> None:
        """Load a file; see `visit`."""
        self.visit(pathlib.Path(path).resolve().as_uri(), width, height, **media)

    def visit(self, url: str, width: int, height: int, **media: str) -> None:
        """Load a page in a window of this size; `media`: features such as color_scheme="dark"."""
        self.errors.clear()
        self.requests.clear()
        features = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in media.items()
        ]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.resize(width, height)
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window, in px."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; of a promise, what it becomes.

        Raises:
          RuntimeError: it threw.
        """
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Wait until an expression is true in the page.

        Raises:
          TimeoutError: it stays false.
        """
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition} stays false; errors: {self.errors}")
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Click with the mouse into the middle of an element."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{find}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"{find}.getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str) -> None:
        """Press and release a key of KEYS."""
        names = {"key": key, "code": KEYS[key], "windowsVirtualKeyCode": CODES[key]}
        text = {"text": " "} if key == " " else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **names, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def download_to(self, folder: os.PathLike) -> None:
        """Save what the page offers in a folder."""
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def controls(self) -> list[tuple[str, str]]:
        """Role and name of each control that is shown, as screen readers get them."""
        kinds = {"button", "slider", "checkbox", "radio", "combobox", "application"}
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in kinds
        ]

    def screenshot(self, whole: bool = False) -> bytes:
        """The window, or the whole page, as a PNG file."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])
