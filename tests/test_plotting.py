import importlib
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from cases import two_cells
from PIL import Image

from fastlogconv import calculate_weights, plot_weight_parameters, show

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def figures_on_no_screen():
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def drawn(ax):
    """The values of the one image in an axes."""
    (image,) = ax.images
    return np.asarray(image.get_array())


def test_show_one_row_without_axes():
    arrays = [np.eye(3), two_cells(), torch.rand(4, 5, requires_grad=True), [[1, 2]], two_cells() > 0]
    figure = show(*arrays)
    assert len(figure.axes) == len(arrays)
    places = {ax.get_subplotspec().rowspan.start for ax in figure.axes}
    assert places == {0}
    for ax, array in zip(figure.axes, arrays, strict=True):
        assert not ax.axison
        assert ax.get_title() == ""
        np.testing.assert_allclose(drawn(ax), torch.as_tensor(array).detach().numpy())


def test_show_titles_and_colour_bars():
    figure = show(two_cells(), np.zeros((4, 5, 3)), titles=["labels", "colour"], colorbar=True, cmap="gray")
    assert [ax.get_title() for ax in figure.axes[:2]] == ["labels", "colour"]
    assert len(figure.axes) == 3  # one colour bar: an image in colour has none
    assert figure.axes[0].images[0].get_cmap().name == "gray"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.bool])
def test_show_every_dtype(dtype):
    array = torch.from_numpy(two_cells()).to(dtype)
    np.testing.assert_allclose(drawn(show(array).axes[0]).astype(float), array.double().numpy())


@pytest.mark.parametrize(
    ("arrays", "titles", "kind", "message"),
    [
        ((), None, TypeError, "at least one"),
        ((np.zeros((2, 3, 4, 5)),), None, ValueError, r"array 0 .* got \[2, 3, 4, 5\]"),
        ((np.zeros((2, 3)), np.zeros(3)), None, ValueError, r"array 1 .* got \[3\]"),
        ((np.zeros((2, 3), dtype=object),), None, TypeError, "object"),
        ((np.zeros((2, 3)),), ["a", "b"], ValueError, "titles"),
        ((np.zeros((2, 3)), np.zeros((2, 3))), "ab", ValueError, "titles"),
    ],
)
def test_show_bad_input(arrays, titles, kind, message):
    with pytest.raises(kind, match=message):
        show(*arrays, titles=titles)


def test_show_what_files_hold():
    labels = two_cells()
    for array in (labels[..., None], labels.astype("Q"), labels.astype(">u2")[::-1, ::-1][::-1, ::-1]):
        np.testing.assert_array_equal(drawn(show(array).axes[0]), labels)
    masked = show(np.ma.masked_array(labels, labels == 2)).axes[0].images[0].get_array()
    assert np.array_equal(np.ma.getmaskarray(masked), labels == 2)


NOTEBOOK = """
import os
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.displaypub import DisplayPublisher

drawn = []


class Publisher(DisplayPublisher):
    def publish(self, data, *_, **__):
        drawn.append("image/png" in data)


class Shell(InteractiveShell):
    def enable_gui(self, gui=None):
        pass


shell = Shell.instance(display_pub_class=Publisher)
shell.displayhook.write_format_data = lambda data, _: drawn.append("image/png" in data)
shell.displayhook.write_output_prompt = lambda: None
shell.run_cell("%matplotlib inline")
shell.run_cell("import numpy as np, fastlogconv as f, matplotlib.pyplot as plt")
for cell, expected in {
    "f.show(np.eye(3))": 1,
    "f.plot_weight_parameters(np.eye(3, dtype=int), [1], [1])": 1,
    "figure = f.show(np.eye(3)); figure.suptitle('later'); None": 1,
    "figure": 1,
    "other, _ = plt.subplots(); figure": 2,
    "from IPython.display import display; display(f.show(np.eye(3)))": 1,
    "for _ in range(3): f.show(np.eye(3))": 3,
    "None": 0,
}.items():
    drawn.clear()
    assert shell.run_cell(cell).success
    assert drawn == [True] * expected, (cell, drawn)
    shell.run_cell("assert not plt.get_fignums()").raise_error()
"""


def test_a_notebook_draws_it_once():
    """And closes it, as the figures of other cells."""
    pytest.importorskip("matplotlib_inline")
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_elsewhere_figures_are_plain():
    assert not hasattr(show(np.eye(3)), "_ipython_display_")


@pytest.mark.parametrize("log", [True, False])
def test_parameter_grid(log):
    fds, bwf = (2, 10, 30), (0, 5)
    figure = plot_weight_parameters(two_cells(), fds, bwf, log=log, bws=4, fbr=0.2)
    panels = figure.axes[: len(fds) * len(bwf)]
    assert len(figure.axes) == len(panels) + 1  # one colour bar for all
    for ax, (f, b) in zip(panels, [(f, b) for f in fds for b in bwf], strict=True):
        assert ax.get_title() == f"fds = {f}, bwf = {b}"
        expected = calculate_weights(instlabels=two_cells(), fds=f, bwf=b, bws=4, fbr=0.2)[1]
        np.testing.assert_array_equal(drawn(ax), expected)
    limits = {ax.images[0].get_clim() for ax in panels}
    assert len(limits) == 1


@pytest.mark.parametrize("mask", [np.zeros((5, 6), dtype=int), np.ones((5, 6), dtype=int)])
def test_parameter_grid_of_one_weight(mask):
    plot_weight_parameters(mask, (1,), (1,)).canvas.draw()


def test_parameter_grid_bad_input():
    with pytest.raises(ValueError, match="at least one value"):
        plot_weight_parameters(two_cells(), fds=[])
    with pytest.raises(ValueError, match="fds must be"):
        plot_weight_parameters(two_cells(), fds=[-1])


@pytest.mark.parametrize("call", [lambda: show(np.eye(3)), lambda: plot_weight_parameters(two_cells())])
def test_without_matplotlib(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=re.escape('pip install "fastlogconv[plot]"')):
        call()


# ------------------------------------------------------------------------------------------ the walkthrough


def test_walkthrough(monkeypatch, tmp_path):
    """Its code runs, and every figure that it shows is made by it."""
    monkeypatch.syspath_prepend(DOCS)
    written = importlib.import_module("make_walkthrough").make(tmp_path, dpi=20)
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", (DOCS / "walkthrough.md").read_text(), flags=re.MULTILINE)
    assert len(pictures) >= 8
    assert [path.name for path in written] == [Path(picture).name for picture in pictures]
    assert sorted(DOCS / picture for picture in pictures) == sorted((DOCS / "walkthrough").iterdir())
    for path in written:
        colours = np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 10  # a picture, not an empty canvas


@pytest.mark.parametrize("name", ["presets", "volumes"])
def test_figures_of_the_readme(name, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script adds to it
    (path,) = importlib.import_module(f"make_{name}_figure").make(tmp_path, dpi=20)
    assert path.name == f"{name}.png"
    with Image.open(path) as made, Image.open(DOCS / path.name) as shown:
        colours = np.unique(np.asarray(made.convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 100
        assert made.width / made.height == pytest.approx(shown.width / shown.height, abs=0.01)
    assert (DOCS / path.name).stat().st_size < 400 * 1024
