"""A headless Chromium, driven through its debugging pipe: open an address, ask the page, take a picture.

Messages are JSON, ended by a zero byte, on the file descriptors 3 and 4 of the browser; nothing but the
standard library is needed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
SIZE = (1400, 1000)

# All text that a person sees, that of shadow roots and frames included; scripts and styles are none.
TEXT = """(() => {
  const parts = [];
  const walk = node => {
    if (node.nodeType === 3) { parts.push(node.textContent.trim()); return; }
    if (['SCRIPT', 'STYLE', 'TEMPLATE'].includes(node.nodeName)) return;
    if (node.shadowRoot) walk(node.shadowRoot);
    if (node.nodeName === 'IFRAME' && node.contentDocument) walk(node.contentDocument.body);
    node.childNodes.forEach(walk);
  };
  walk(document.body);
  return parts.filter(Boolean).join('\\n');
})()"""


class Browser:
    """One page of a browser."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read, self.rest, self.number = write, read, b"", 0
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The browser's answer to a command of its protocol."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.read, 1 << 20)
            line, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get(
            "value"
        )

    def wait_for(self, *words: str, seconds: float = 60.0) -> str:
        """The text of the page, once all of these words are in it."""
        until = time.monotonic() + seconds
        while True:
            text = str(self.ask(TEXT) or "")
            missing = [word for word in words if word not in text]
            if not missing:
                return text
            assert time.monotonic() < until, f"{missing} are not on the page: {text[:2000]}"
            time.sleep(0.25)

    def picture(self, path: Path) -> None:
        """A PNG of what is on the screen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def opened(profile: Path) -> Iterator[Browser]:
    """A browser with its profile in a folder, closed in the end."""
    assert PROGRAM is not None
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    # The shell gives the pipes the numbers that the browser wants them to have.
    command = f'exec "$@" 3<&{to_browser} 4>&{from_browser} 2>/dev/null'
    flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}"]
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", PROGRAM, *flags], pass_fds=(to_browser, from_browser)
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(from_us, to_us)
    finally:
        process.terminate()
        process.wait(20)
        os.close(from_us)
        os.close(to_us)
