"""The served page in a real browser: loads without an error, is worked by keyboard alone, fits a phone, and has a name on everything.

    python3 tests/web/page_test.py build/release/atelier [folder for screenshots]

Exits with 77, which ctest counts as skipped, where there is no Chromium (scripts/setup.sh test installs its headless shell).
"""
import base64
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import unittest

from browser import Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM, SCREENSHOTS = "build/release/atelier", None
TAB, ENTER, RIGHT = ("Tab", 9), ("Enter", 13), ("ArrowRight", 39)
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
MOST_MILLISECONDS = 300  # from a click to the picture, on the small ensemble
CLICK = """new Promise((shown) => {
  const begun = performance.now();
  new MutationObserver(async (changes, observer) => {
    observer.disconnect();
    await document.querySelector("#pictures img").decode();
    requestAnimationFrame(() => requestAnimationFrame(() => shown(performance.now() - begun)));  // the second comes after the first was painted
  }).observe(document.querySelector("#pictures"), { childList: true });
  document.querySelector("button[type=submit]").click();
})"""
WORKED = {"textbox", "spinbutton", "combobox", "radio", "checkbox", "button", "link", "image"}


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = subprocess.Popen([PROGRAM, "serve", "models/fashion-mnist/k4", "models/fashion-mnist/k4-small", "--port", "0", "--threads", "1"], cwd=ROOT,
                                      stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        cls.addClassCleanup(cls.end_server)
        said = ""
        while "\nready" not in said:
            line = cls.server.stderr.readline()
            if not line:
                raise RuntimeError("the server ended: " + said)
            said += "\n" + line
        cls.url = re.search(r"http://\S+", said)[0]
        cls.browser = Browser(CHROMIUM)
        cls.addClassCleanup(cls.browser.close)

    @classmethod
    def end_server(cls):
        cls.server.terminate()
        cls.server.communicate()

    def open(self, width=1100, height=900, dark=False):
        self.browser.complaints.clear()
        self.browser.resize(width, height, dark)
        self.browser.ask("Page.navigate", url=self.url)
        self.browser.until("document.querySelectorAll('#pictures img').length === 8")

    def shoot(self, name):
        if SCREENSHOTS:
            picture = self.browser.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
            (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(picture))

    def tab_to(self, selector):
        for _ in range(30):
            self.browser.press(*TAB)
            if self.browser.value(f"document.activeElement.matches({selector!r})"):
                return
        self.fail(f"the Tab key does not reach {selector}")

    def test_it_loads_and_draws_without_an_error(self):
        for dark in (False, True):
            self.open(dark=dark)
            self.shoot("dark" if dark else "light")
            self.assertEqual(self.browser.complaints, [])
        self.assertTrue(self.browser.value("[...document.images].every((image) => image.complete && image.naturalWidth > 0)"))

    def test_the_keyboard_alone_chooses_a_class_and_draws(self):
        self.open()
        self.browser.value("document.querySelector('#count').value = 3")
        self.tab_to("#classes input")
        for _ in range(5):
            self.browser.press(*RIGHT)
        wanted = self.browser.value("document.activeElement.closest('label').textContent")
        self.assertEqual(wanted, "sandal")
        self.tab_to("button[type=submit]")
        self.browser.press(*ENTER)
        self.browser.until("document.querySelectorAll('#pictures img').length === 3")
        self.assertEqual(self.browser.value("[...document.querySelectorAll('#pictures img')].every((image) => image.alt.startsWith('sandal,'))"), True)
        self.assertIn("by student 1 of k4", self.browser.value("document.querySelector('#status').textContent"))
        self.browser.until("document.activeElement.matches('button[type=submit]')")  # the focus stays where it was

    def test_a_click_brings_a_picture_at_once(self):
        self.open()
        self.browser.value("document.querySelector('#count').value = 1")
        self.browser.value("document.querySelector('#model').value = 'k4-small'")
        self.browser.until("!document.querySelector('button[type=submit]').disabled")
        took = []
        for _ in range(10):
            took.append(self.browser.value(CLICK))
            self.browser.until("!document.querySelector('button[type=submit]').disabled")
        self.assertIn("of k4-small", self.browser.value("document.querySelector('#status').textContent"))
        print(f"from a click to the picture: {min(took):.0f} to {max(took):.0f} ms, median {statistics.median(took):.0f} ms")
        self.assertLess(min(took), MOST_MILLISECONDS)  # the least, since others use the machine as well

    def test_a_phone_scrolls_down_only(self):
        for width in (320, 390):
            self.open(width, 800)
            self.shoot(f"phone-{width}")
            self.assertEqual(self.browser.value("document.documentElement.scrollWidth"), width)

    def test_everything_that_is_worked_or_looked_at_has_a_name(self):
        self.open()
        nodes = [node for node in self.browser.ask("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
        worked = [node for node in nodes if node["role"]["value"] in WORKED]
        self.assertGreater(len(worked), 20)
        self.assertEqual([node["role"]["value"] for node in worked if not node.get("name", {}).get("value", "").strip()], [])
        self.assertEqual(self.browser.value("document.documentElement.lang"), "en")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
    if len(sys.argv) > 1:
        SCREENSHOTS = pathlib.Path(sys.argv.pop(1))
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if CHROMIUM is None:
        print("skipped: Chromium is not installed (apt-get install chromium-headless-shell)")
        sys.exit(77)
    unittest.main()
