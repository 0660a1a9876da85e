"""The statistics page in a browser: an operator's few minutes at it.

    page.py URL

Speaks the DevTools protocol with headless Chromium over a pipe; nothing but
Python is needed. After each step it prints what holds by then and waits for a
line, so that the test that runs it can see whether the load balancer agrees.
A step that does not come true ends it with a message.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

DEADLINE = 15


class Browser:
    """Chromium with one page open."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="tidings-browser-")
        ours, theirs = os.pipe(), os.pipe()

        def pipes():
            # Out of the way first: one of them may be 3 or 4 itself.
            to = fcntl.fcntl(ours[0], fcntl.F_DUPFD, 10)
            of = fcntl.fcntl(theirs[1], fcntl.F_DUPFD, 10)
            os.dup2(to, 3)
            os.dup2(of, 4)

        self.process = subprocess.Popen(
            [
                "chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
                "--remote-debugging-pipe", "--window-size=900,500",
                f"--user-data-dir={self.profile}", "about:blank",
            ],
            preexec_fn=pipes, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.of = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self.number, self.session = 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.complaints = []
        self.call("Runtime.enable")
        self.call("Log.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = json.loads(self.read())
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(answer["params"])
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]

    def read(self):
        message = bytearray()
        while (byte := self.of.read(1)) != b"\0":
            if not byte:
                sys.exit("the browser is gone")
            message += byte
        return bytes(message)

    def run(self, script):
        """What a script evaluates to in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, what, script):
        """Waits until a script is true in the page."""
        end = time.monotonic() + DEADLINE
        while not self.run(script):
            if time.monotonic() > end:
                sys.exit(f"not within {DEADLINE} s: {what}")
            time.sleep(0.05)

    def click(self, selector):
        """Presses the mouse where an element is."""
        place = self.run(
            f"""(() => {{
                const at = document.querySelector({json.dumps(selector)});
                at.scrollIntoView({{ block: 'center' }});
                const {{ x, y, width, height }} = at.getBoundingClientRect();
                return [x + width / 2, y + height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1],
                button="left", clickCount=1,
            )

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


def row(name):
    return f"document.getElementById('nodes/{name}')?.parentElement"


def holds(what):
    print(what, flush=True)
    sys.stdin.readline()


def look(browser, url):
    browser.call("Page.navigate", url=url)
    browser.until("the page is live", "document.querySelector('#live.live') !== null")
    browser.until("s1 is up", f"{row('s1')}?.className === 'active_up'")
    # What a reload, a jump or a new row in place of the old one would lose.
    browser.run(
        f"""(() => {{
            window.mark = 'still the same page';
            Object.assign({row('s1')}, {{ mark: 'still the same row' }});
            scrollTo(0, 120);
            document.querySelector('#filter').focus({{ preventScroll: true }});
            const name = document.getElementById('nodes/s1').querySelector('a').firstChild;
            const age = {row('s1')}.querySelector('time').firstChild;
            getSelection().setBaseAndExtent(name, 1, age, 1);
        }})()"""
    )


def undisturbed(browser):
    state = browser.run(
        f"""(() => {{
            const held = getSelection();
            return [
                window.mark, {row('s1')}.mark, scrollY, document.activeElement.id,
                held.anchorNode.data, held.anchorOffset, held.focusOffset,
                {row('s1')}.querySelector('time').contains(held.focusNode),
            ];
        }})()"""
    )
    wanted = ["still the same page", "still the same row", 120, "filter", "s1", 1, 1, True]
    if state != wanted:
        sys.exit(f"disturbed: {state}, not {wanted}")


def main(url):
    browser = Browser()
    try:
        look(browser, url)
        holds("open")
        browser.until("s3 is up", f"{row('s3')}?.className === 'active_up'")
        undisturbed(browser)
        holds("joined")
        browser.until("s2 is down", f"{row('s2')}?.className === 'active_down'")
        browser.until(
            "the crash is on the timeline",
            "document.querySelector('.events li.active_down')?.textContent.includes('s2')",
        )
        undisturbed(browser)
        age = browser.run(f"{row('s1')}.querySelector('time').textContent")
        browser.until("time goes on", f"{row('s1')}.querySelector('time').textContent !== '{age}'")
        undisturbed(browser)
        holds("died")
        browser.click("button[name=drain][value=s1]")
        browser.until("s1 drains", f"{row('s1')}?.className === 'active_draining'")
        browser.until(
            "the button says so",
            "document.querySelector('button[name=drain][value=s1]').ariaPressed === 'true'",
        )
        holds("drained")
        browser.click("#undo")
        browser.until("s1 is up again", f"{row('s1')}?.className === 'active_up'")
        holds("undone")
        for name in ("s1", "s3"):
            browser.click(f"input[value={name}]")
        browser.click("button[value=maint]")
        browser.until("both are out", f"{row('s1')}.className + {row('s3')}.className === 'maintainmaintain'")
        holds("out")
        browser.run("document.activeElement.blur()")
        browser.call("Input.insertText", text="")
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="u", text="u")
        browser.until("both are back", f"{row('s1')}.className + {row('s3')}.className === 'active_upactive_up'")
        if browser.run("window.mark") != "still the same page":
            sys.exit("the page was loaded again")
        if browser.complaints:
            sys.exit(f"the browser complains: {browser.complaints}")
        holds("back")
    finally:
        browser.close()


main(sys.argv[1])
