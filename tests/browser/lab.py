"""A page of the course in JupyterLab, as a reader has it: opened, run, moved and looked at in Chromium."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, expect

FAST, SLOW = 120_000, 900_000  #: milliseconds until something counts as hanging, that takes seconds or minutes
FIGURE = ".jp-OutputArea-output figure img"
TROUBLE = "[data-mime-type$='jupyter.error'], [data-mime-type$='jupyter.stderr']"
CONTROLS = ".jupyter-widgets :is(select, input:not([type=file]), button, [role=slider])"
BAR = ".jp-CodeCell:has(section[aria-label='which run this is'])"

#: Outputs that are wider than their place -> the first words of each.
WIDE = """() => [...document.querySelectorAll('.jp-OutputArea-output, .jp-OutputArea-output *, .jp-MarkdownOutput')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
    .map(e => `${e.scrollWidth} in ${e.clientWidth}: ${e.innerText.slice(0, 60)}`)"""

#: Printed words that go on in the next line.
BROKEN = """() => [...document.querySelectorAll('.jp-OutputArea-output pre')].flatMap(pre => {
    const broken = [], walk = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT), range = document.createRange();
    while (walk.nextNode())
        for (const word of walk.currentNode.data.matchAll(/\\S+/g)) {
            range.setStart(walk.currentNode, word.index);
            range.setEnd(walk.currentNode, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map(r => r.top)).size > 1) broken.push(word[0]);
        }
    return broken;
})"""


#: Words of text and outputs whose contrast with what is behind them is below 4.5, the least that WCAG 2.1 allows.
FAINT = """() => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const part = x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * part(r / 255) + 0.7152 * part(g / 255) + 0.0722 * part(b / 255);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = numbers(getComputedStyle(e).backgroundColor);
            if (colour.length == 3 || colour[3] == 1) return colour;
        }
        return [255, 255, 255];
    };
    const own = e => [...e.childNodes].some(node => node.nodeType == 3 && node.data.trim());
    return [...document.querySelectorAll(':is(.jp-OutputArea-output, .jp-MarkdownOutput) *')].filter(own).filter(e => {
        const [dark, bright] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05) < 4.5;
    }).map(e => e.textContent.slice(0, 60));
}"""


class Lab:
    """One notebook in one tab of the browser.

    Attributes:
        tab: the tab, for what only one test needs.
    """

    def __init__(self, tab: Page, address: str, screenshots: Path):
        self.tab, self._screenshots = tab, screenshots
        self.name = Path(urlsplit(address).path).stem
        tab.goto(address, timeout=FAST)
        self._wait("jupyterapp.shell.currentWidget.sessionContext.session.kernel.status == 'idle'")

    def _wait(self, condition: str, timeout: int = FAST) -> None:
        """Wait until an expression is true; one that cannot be computed yet is not."""
        self.tab.wait_for_function(
            f"() => {{ try {{ return {condition} }} catch {{ return false }} }}", timeout=timeout
        )

    def command(self, name: str, **arguments) -> None:
        """Run one of JupyterLab's own commands, which menus and keys call, without waiting for its end."""
        self.tab.evaluate(
            """([name, given]) => {
                window.ended = false;
                jupyterapp.commands.execute(name, given).finally(() => { window.ended = true; });
            }""",
            [name, arguments],
        )

    def run(self) -> None:
        """Run all cells, until the last has ended or one has failed."""
        self.command("notebook:run-all-cells")
        self.wait_until_run()

    def wait_until_run(self) -> None:
        """Wait until the kernel has nothing left to do."""
        self._wait("window.ended", SLOW)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until the kernel rests."""
        self._wait("jupyterapp.shell.currentWidget.sessionContext.session.kernel.status == 'idle'", SLOW)

    def end(self) -> None:
        """Shut the kernel down."""
        self.tab.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")

    def restart(self) -> None:
        """Start the kernel afresh and run all cells."""
        self.command("notebook:restart-run-all")
        self.tab.locator(".jp-Dialog .jp-mod-accept").click()
        self.wait_until_run()

    def controls(self) -> list[Locator]:
        """What moves figures: menus, number fields, sliders, check boxes and buttons; none that asks for a file."""
        return self.tab.locator(f":is({CONTROLS}):not(.widget-upload, {BAR} *)").all()

    def bar(self) -> Locator:
        """The cell that says which run the page shows."""
        return self.tab.locator(BAR)

    def cell_of(self, part: Locator) -> Locator:
        """The code cell that has a part of the page."""
        return part.locator("xpath=ancestor::*[contains(@class, 'jp-CodeCell')]")

    def figures(self) -> Locator:
        """All figures."""
        return self.tab.locator(FIGURE)

    def trouble(self) -> list[str]:
        """Tracebacks and warnings on the page."""
        return self.tab.locator(TROUBLE).all_inner_texts()

    def resize(self, width: int) -> None:
        """Make the window so many pixels wide; one narrower than a tablet shows the page only, without side bar."""
        self.tab.set_viewport_size({"width": width, "height": 1000})
        open_now = self.tab.evaluate("() => !jupyterapp.shell.leftCollapsed")
        if open_now != (width > 1000):
            self.command("application:toggle-left-area")
            self._wait(f"jupyterapp.shell.leftCollapsed == {str(open_now).lower()}")

    def theme(self, name: str) -> None:
        """Change the colours of JupyterLab."""
        self.command("apputils:change-theme", theme=name)
        self._wait(f"document.body.dataset.jpThemeName == '{name}'")

    def screenshot(self, what: str, part: Locator | None = None) -> None:
        """Keep a picture of the whole page, or of a part, for whoever wants to see it."""
        target = self._screenshots / f"{self.name}-{what}.png"
        if part is not None:
            part.screenshot(path=target)
            return
        window = self.tab.viewport_size
        height = self.tab.evaluate(
            """() => {
                const cells = document.querySelectorAll('.jp-Notebook .jp-Cell');
                return cells[cells.length - 1].getBoundingClientRect().bottom - cells[0].getBoundingClientRect().top;
            }"""
        )
        self.tab.set_viewport_size({"width": window["width"], "height": min(int(height) + 200, 16_000)})
        self.tab.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
        self.tab.screenshot(path=target)
        self.tab.set_viewport_size(window)


def move(lab: Lab, control: Locator, how: Callable[[Locator], None]) -> list[int]:
    """Move a control with `how(control)`, until its figure has changed -> the heights of its cell on the way."""
    cell = lab.cell_of(control)
    figure = cell.locator(FIGURE).last
    before = figure.get_attribute("src")
    cell.evaluate(
        """cell => {
            window.heights = [cell.offsetHeight];
            window.observer = new ResizeObserver(() => heights.push(cell.offsetHeight));
            observer.observe(cell);
        }"""
    )
    how(control)
    expect(figure).not_to_have_attribute("src", before, timeout=FAST)
    lab.wait_until_idle()
    return lab.tab.evaluate("() => { observer.disconnect(); return heights }")
