"""The Python of README.md and of the pages in docs/, in blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
INTEGRATIONS = ROOT / "docs" / "integrations.md"


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def library_of(block):
    """The library whose integration a block shows, or None."""
    found = re.search(r"from fastlogconv\.integrations\.(\w+) import", block)
    return found and found.group(1)


def run(code, page):
    """Runs code of `page`; returns what is then defined."""
    names = {"__name__": page.stem}
    exec(compile(code, str(page), "exec"), names)
    return names


def run_page_of(library):
    """Runs what docs/integrations.md shows of a library, after its first block."""
    first, *others = blocks(INTEGRATIONS)
    (block,) = (block for block in others if library_of(block) == library)
    return run(first + block, INTEGRATIONS)
