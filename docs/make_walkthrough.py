"""Makes the figures of walkthrough.md by running its Python, from top to bottom.

After each block of code, `figure` is saved under the name of the picture that follows it in the text.

    python docs/make_walkthrough.py              # writes docs/walkthrough/*.png
    python docs/make_walkthrough.py --out DIR --dpi 30
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

DOCS = Path(__file__).resolve().parent


def make(out: Path, dpi: int) -> list[Path]:
    """Runs the page's code, saves its figures below `out`, and returns their paths."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    text = (DOCS / "walkthrough.md").read_text()
    names, written = {"__name__": "walkthrough"}, []
    np.random.seed(0)  # the sampled centres are the same each time
    parts = re.finditer(r"^```python\n(.*?)^```|^!\[[^\]]*\]\((.*?)\)", text, flags=re.MULTILINE | re.DOTALL)
    for code, picture in (part.groups() for part in parts):
        if code is not None:
            names.pop("figure", None)
            exec(compile(code, "walkthrough.md", "exec"), names)
        elif picture is not None:
            path = out / Path(picture).name
            names["figure"].savefig(path, dpi=dpi, pil_kwargs={"optimize": True}, metadata={"Software": None})
            written.append(path)
    plt.close("all")
    return written


def main(make: Callable[[Path, int], list[Path]], description: str | None, out: Path, dpi: int) -> None:
    """The command line of a script that makes figures: make(out, dpi) returns their paths."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=out, help="folder for the figures")
    parser.add_argument("--dpi", type=int, default=dpi, help="pixels per inch")
    arguments = parser.parse_args()
    for path in make(arguments.out, arguments.dpi):
        print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(make, __doc__, DOCS / "walkthrough", 70)
