"""Whether a page is accessible, as far as axe-core can tell: WCAG 2.2 A and AA, and its own best practices.

`tests/web/vendor/axe-core` is axe-core as its authors publish it (Mozilla Public License 2.0).
"""

from functools import cache
from pathlib import Path

from playwright.async_api import Page

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
RUN = """async () => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const { violations } = await axe.run(document, { runOnly: tags, resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map((node) =>
    `${id}: ${node.target} ${node.failureSummary.replaceAll("\\n", " ")}`));
}"""


@cache
def _script() -> str:
    return AXE.read_text()


async def violations(page: Page) -> list[str]:
    """What is wrong, and where. The debugger evaluates the script: the page's policy forbids a tag."""
    await page.evaluate(_script())
    return await page.evaluate(RUN)
