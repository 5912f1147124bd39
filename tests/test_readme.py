"""The README's Python, run from top to bottom."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_code_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})
