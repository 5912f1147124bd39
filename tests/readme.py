"""The Python of the README, in blocks."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def blocks():
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def library_of(block):
    """The library whose integration a block shows, or None."""
    found = re.search(r"from fastlogconv\.integrations\.(\w+) import", block)
    return found and found.group(1)


def run_readme_of(library):
    """Runs what the README shows of a library, after its first block; returns what is then defined."""
    (block,) = (block for block in blocks() if library_of(block) == library)
    names = {"__name__": "readme"}
    exec(compile(blocks()[0] + block, "README.md", "exec"), names)
    return names
