"""Looks at the dashboard with Debian's chromium, as an operator does.

    dashboard.py CHROMIUM

Reads the name of a step and its argument from each line of its input, and writes what came of it as a
line of JSON. An argument is the rest of the line; several are one JSON object.
"""

import json
import os
import shutil
import sys
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which(sys.argv[1])
PATIENCE = 25_000

# Of what the API says, all that some other program, a user or an API had a hand in.
HOSTILE = "<img src=x onerror=alert(1)>\u202e<script>alert(2)</script>\x07"
FREE_TEXT = {"message", "what", "who", "do", "host", "target", "report", "file", "restart_needed"}


class Steps:
    """The steps that a test may take. The page is the one that was opened last."""

    def __init__(self, browser):
        self.browser = browser
        self.browser_session = browser.new_browser_cdp_session()
        self.tabs = []
        self.page = None
        self.complaints = []
        self.asked = []

    def open(self, url, scheme="light", width=1440, motion="no-preference", hostile=False):
        """Opens the page in a window of its own, and waits until it shows what the proxy says."""
        if self.page:
            self.page.context.close()
        context = self.browser.new_context(
            color_scheme=scheme, reduced_motion=motion, viewport={"width": width, "height": 900}
        )
        context.set_default_timeout(PATIENCE)
        self.page = context.new_page()
        self.complaints, self.asked = [], []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self.hear)
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        if hostile:
            self.page.route("**/api/state", made_hostile)
            self.page.route("**/api/events", hostile_events)
        self.page.goto(url)
        self.page.wait_for_selector("#events-count:not(:empty)")

    def hear(self, message):
        # Of a proxy that is gone the browser says itself that it does not answer.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def complained(self):
        """What the browser refused to do, and what the page failed at."""
        return self.complaints

    def foreign(self):
        """What was asked of anybody but the page's own listener."""
        own = urlsplit(self.page.url).netloc
        return [url for url in self.asked if not url.startswith("data:") and urlsplit(url).netloc != own]

    def axe(self):
        """What axe finds, as one line for each element."""
        found = Axe().run(self.page).response["violations"]
        return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]

    def overflow(self):
        """By how many pixels the page is wider than its window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def text(self, selector):
        return self.page.locator(selector).first.inner_text()

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def wait(self, selector):
        """Returns the text of what can be seen, once it can."""
        return self.page.wait_for_selector(selector).inner_text()

    def gone(self, selector):
        self.page.wait_for_selector(selector, state="hidden")

    def attribute(self, selector, name):
        return self.page.locator(selector).first.get_attribute(name)

    def style(self, selector, name):
        """A style as it is computed."""
        return self.page.locator(selector).first.evaluate(
            "(element, name) => getComputedStyle(element)[name]", name
        )

    def title(self):
        return self.page.title()

    def press(self, key):
        """Presses a key, and returns the id of what has the focus then."""
        self.page.keyboard.press(key)
        return self.focus()

    def type(self, text):
        self.page.keyboard.type(text)

    def click(self, selector):
        self.page.click(selector)

    def focus(self):
        return self.page.evaluate("document.activeElement.id")

    def outline(self):
        """How what has the focus is outlined."""
        return self.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")

    def tab(self, url):
        """Opens a tab beside those that were opened so, which hides them. Playwright leads none of them:
        it would keep them visible."""
        opened = self.browser_session.send("Target.createTarget", {"url": url})
        self.tabs.append(opened["targetId"])

    def look(self, number):
        """Looks at a tab again, which hides the others."""
        self.browser_session.send("Target.activateTarget", {"targetId": self.tabs[int(number)]})

    def screenshot(self, path):
        self.page.screenshot(path=path)


def made_hostile(route):
    """The state as the proxy says it, its free text replaced."""
    answer = route.fetch()
    route.fulfill(response=answer, json=hostile(answer.json()))


def hostile(value, name=None):
    if isinstance(value, dict):
        return {key: hostile(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner, name) for inner in value]
    return HOSTILE if isinstance(value, str) and name in FREE_TEXT else value


def hostile_events(route):
    event = {
        "at": "2026-11-30T00:00:00Z",
        "level": "ERROR",
        "target": HOSTILE,
        "message": HOSTILE,
        "fields": {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
    }
    content = f"event: event\ndata: {json.dumps(event)}\n\n"
    route.fulfill(body=content, headers={"Content-Type": "text/event-stream"})


def take(steps, line):
    name, _, argument = line.strip().partition(" ")
    step = getattr(steps, name)
    if argument.startswith("{"):
        return step(**json.loads(argument))
    return step(argument) if argument else step()


with sync_playwright() as playwright:
    # Chromium refuses its sandbox to root.
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM,
        args=as_root,
        # A tab that is not looked at shall know it.
        ignore_default_args=["--disable-backgrounding-occluded-windows"],
    )
    steps = Steps(browser)
    for line in sys.stdin:
        print(json.dumps(take(steps, line)), flush=True)
    browser.close()
