"""The command line: info, demo, weights."""

import io
import itertools
import json
import re
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import fastlogconv
from fastlogconv.__main__ import main
from fastlogconv.backends import BACKENDS
from fastlogconv.cli import demo


def cells(height=40, width=52, ids=(3, 200, 7)):
    """Three rectangles close together, int64 [H, W]."""
    labels = np.zeros((height, width), dtype=np.int64)
    labels[4:14, 5:15], labels[6:20, 18:30], labels[25:38, 10:40] = ids
    return labels


def save(path, labels, **how):
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".png":
        Image.fromarray(labels).save(path)
    else:
        tifffile.imwrite(path, labels, photometric="minisblack", **how)
    return path


def load(path):
    return np.load(path) if path.suffix == ".npy" else tifffile.imread(path)


def weigh(labels, **settings):
    return fastlogconv.weight_map(torch.from_numpy(labels), **settings).numpy()


def outputs(folder):
    """The weight images of a folder, without the records beside those that have no room for one."""
    paths = sorted(folder.iterdir())
    records = [path for path in paths if path.name.endswith(".npy.json")]
    assert {path.with_suffix("") for path in records} <= set(paths)
    return [path for path in paths if path not in records]


def run(*arguments):
    return main(["weights", *map(str, arguments)])


# -------------------------------------------------------------------------------------------- info, demo


def test_info_names_every_backend_and_the_versions(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for word in (torch.__version__, fastlogconv.__version__, *BACKENDS):
        assert word in printed


def test_demo_prints_a_table_and_writes_the_figure(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "new" / "folder")]) == 0
    printed = capsys.readouterr().out
    figure = tmp_path / "new" / "folder" / "coins.png"
    assert "303 x 384 pixels, 24 instances" in printed
    assert str(figure) in printed

    able = [name for name, module in BACKENDS.items() if module.why_not(torch.device("cpu")) is None]
    rows = re.findall(r"^(\w+) +cpu +(\w+) +(\S+) +<= (\S+)$", printed, re.MULTILINE)
    assert [row[:2] for row in rows] == list(itertools.product(able, demo.CAPTIONS))
    assert all(float(error) <= 1e-5 for *_, error in rows)

    with Image.open(figure) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 1000
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 500  # a picture, not an empty canvas
    assert figure.stat().st_size < 600 * 1024


def test_demo_segments_the_coins():
    labels = demo.segment(demo.data.coins())
    areas = np.bincount(labels.ravel())[1:]
    assert len(areas) == 24
    assert areas.min() > 1000
    assert areas.max() < 3300  # none merged with its neighbour


# ---------------------------------------------------------------------------------------- what it can read

STACK = np.stack([cells(), cells(ids=(1, 2, 3)), np.zeros((40, 52), dtype=np.int64)])


def palette_png(path, labels):
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    assert picture.mode == "P"
    picture.save(path)


def pages_tif(path, labels, **how):
    first, *others = (Image.fromarray(page.astype(np.uint8)) for page in labels)
    first.save(path, save_all=True, append_images=others, **how)


def pages_of(stack, axes, **how):
    """A writer of a stack with the axes that ImageJ or OME give it."""
    return lambda path: tifffile.imwrite(
        path, stack, metadata={"axes": axes}, photometric="minisblack", **how
    )


def in_colour(labels, alpha=None, coded=False):
    parts = [(labels >> 8 * i if coded else labels) & 255 for i in range(3)]
    return np.stack(parts + ([] if alpha is None else [alpha]), -1).astype(np.uint8)


ALPHA = np.random.default_rng(4).integers(0, 256, cells().shape)
S8 = STACK.astype(np.uint8)
READABLE = {
    "tifffile_u64.tif": (lambda path: save(path, cells().astype(np.uint64)), cells()),
    "ulonglong.npy": (lambda path: save(path, cells().astype(np.ulonglong)), cells()),
    "time.tif": (pages_of(S8, "TYX", imagej=True), STACK),
    "z.tif": (pages_of(S8, "ZYX", imagej=True), STACK),
    "channels.tif": (pages_of(S8, "CYX", imagej=True), STACK),
    "hyperstack.tif": (pages_of(S8[:, None], "TCYX", imagej=True), STACK),
    "z.ome.tif": (pages_of(STACK.astype(np.uint16), "ZYX", ome=True), STACK),
    "one_of_each.ome.tif": (pages_of(S8[:, None, None], "TCZYX", ome=True), STACK),
    "channel_last.tif": (pages_of(np.moveaxis(S8, 0, -1), "YXC"), STACK),
    "one_channel_last.tif": (pages_of(S8[0][..., None], "YXC"), STACK[0]),
    "grey_page.tif": (lambda path: save(path, S8[0][..., None]), STACK[0]),
    "planes.tif": (lambda path: save(path, STACK.astype(np.uint16), planarconfig="separate"), STACK),
    "grey_alpha.tif": (
        lambda path: save(
            path, in_colour(cells(), ALPHA)[..., 2:], planarconfig="contig", extrasamples=["unassalpha"]
        ),
        cells(),
    ),
    "grey_rgb.tif": (lambda path: tifffile.imwrite(path, in_colour(cells()), photometric="rgb"), cells()),
    "grey_rgb_u16.tif": (
        lambda path: tifffile.imwrite(
            path, np.stack([cells() * 300] * 3, -1).astype("u2"), photometric="rgb"
        ),
        cells() * 300,
    ),
    "grey_planes.tif": (
        lambda path: tifffile.imwrite(
            path, np.stack([S8[0]] * 3), photometric="rgb", planarconfig="separate"
        ),
        STACK[0],
    ),
    "grey_rgb.png": (lambda path: save(path, in_colour(cells())), cells()),
    "grey_rgba.png": (lambda path: save(path, in_colour(cells(), ALPHA)), cells()),
    "grey_alpha.png": (
        lambda path: Image.fromarray(in_colour(cells(), ALPHA)[..., 2:].copy(), mode="LA").save(path),
        cells(),
    ),
    "grey_rgb.npy": (lambda path: save(path, in_colour(cells())), cells()),
    "u16.tif": (lambda path: save(path, cells().astype(np.uint16)), cells()),
    "big_endian.TIFF": (lambda path: save(path, cells().astype(np.uint16), byteorder=">"), cells()),
    "deflate.tif": (lambda path: save(path, STACK.astype(np.uint8), compression="zlib"), STACK),
    "lzw_pages.tif": (lambda path: pages_tif(path, STACK, compression="tiff_lzw"), STACK),
    "one_page_stack.tif": (lambda path: save(path, STACK[:1].astype(np.int32)), STACK[:1]),
    "float.tif": (lambda path: save(path, cells().astype(np.float32)), cells()),
    "bilevel.tif": (lambda path: Image.fromarray(cells() > 0).save(path), cells() > 0),
    "u8.png": (lambda path: save(path, cells().astype(np.uint8)), cells()),
    "u16.png": (lambda path: save(path, (cells() * 300).astype(np.uint16)), cells() * 300),
    "palette.png": (lambda path: palette_png(path, cells()), cells()),
    "bilevel.png": (lambda path: save(path, cells() > 0), cells() > 0),
    "i64.npy": (lambda path: save(path, cells() * 10**16), cells() * 10**16),
    "batch.npy": (lambda path: save(path, STACK), STACK),
    "big_endian.npy": (lambda path: save(path, cells().astype(">i4")), cells()),
    "fortran.npy": (lambda path: save(path, np.asfortranarray(cells())), cells()),
    "f16.npy": (lambda path: save(path, cells().astype(np.float16)), cells()),
    "bool.npy": (lambda path: save(path, cells() > 0), cells() > 0),
    "negative.npy": (lambda path: save(path, cells() - 5), cells() - 5),
}


@pytest.mark.parametrize("name", READABLE)
def test_weights_of_every_readable_kind(tmp_path, name, capsys):
    write, labels = READABLE[name]
    write(tmp_path / name)
    assert run(tmp_path / name, "--out", tmp_path / "out") == 0
    (output,) = outputs(tmp_path / "out")
    assert output.name == name.rsplit(".", 1)[0] + (".npy" if name.endswith("npy") else ".tif")
    weights = load(output)
    assert weights.dtype == np.float32 and weights.shape == labels.shape
    np.testing.assert_allclose(weights, weigh(labels), rtol=1e-6)
    assert "1 written, 0 kept, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("batch", [False, True])
def test_trailing_channel_of_an_array(batch, tmp_path):
    labels = STACK if batch else STACK[0]
    mask = save(tmp_path / "a.npy", labels[..., None])
    for suffix, shape in (("npy", (*labels.shape, 1)), ("tif", labels.shape)):
        assert run(mask, "--out", tmp_path / "out", "--format", suffix) == 0
        weights = load(tmp_path / "out" / f"a.{suffix}")
        assert weights.shape == shape
        np.testing.assert_array_equal(weights.reshape(labels.shape), weigh(labels))


@pytest.mark.parametrize(
    "name", ["a.png", "alpha.png", "a.tif", "pages.tif", "a.npy", "palette.png", "grey.png"]
)
def test_ids_coded_by_colour(name, tmp_path):
    """As in COCO's panoptic segmentation; what has one channel is taken as it is."""
    ids = cells(ids=(3, 3 + 256 * 200, 7 + 65536 * 90))
    picture = in_colour(ids, ALPHA if name == "alpha.png" else None, coded=True)
    path = tmp_path / name
    if name == "palette.png":
        Image.fromarray(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(path)
    elif name == "grey.png":
        ids = cells()
        save(path, ids.astype(np.uint8))
    elif name.endswith("tif"):
        picture, ids = (picture, ids) if name == "a.tif" else (np.stack([picture] * 2), np.stack([ids] * 2))
        tifffile.imwrite(path, picture, photometric="rgb")
    else:
        save(path, picture)
    assert run(path, "--out", tmp_path / "out", "--colour-ids", "--format", "npy") == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / path.with_suffix(".npy").name), weigh(ids))
    if name not in ("palette.png", "grey.png"):
        assert run(path, "--out", tmp_path / "other") == 1


@pytest.mark.parametrize(
    "given, settings",
    [
        ([], dict()),
        (["--preset", "unet"], dict(distance="euclidean")),
        (["--preset", "deepflash2"], dict(border="farthest", bwf=1)),
        (["--preset", "unet", "--bwf", "0", "--border", "farthest"],
         dict(distance="euclidean", border="farthest", bwf=0)),
        (["--distance", "euclidean"], dict(distance="euclidean")),
        (["--ks", "none", "--fds", "40"], dict(ks=None, fds=40)),
        (["--ignore-index", "2"], dict(ignore_index=2)),
        (["--ignore-index", "-1"], dict(ignore_index=-1)),
        (["--ignore-index", "-1", "2", "255"], dict(ignore_index=[2])),
    ],
)  # fmt: skip
def test_presets_and_regions_to_ignore(given, settings, tmp_path):
    mask = save(tmp_path / "a.npy", cells(ids=(1, 2, 3)))
    assert run(mask, "--out", tmp_path / "out", *given) == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.npy"), weigh(cells(ids=(1, 2, 3)), **settings))


def test_settings_reach_the_weights(tmp_path):
    save(tmp_path / "a.npy", cells(ids=(1, 2, 3)))
    settings = {"border": "farthest", "bws": 4, "fds": 6.5, "bwf": 3, "fbr": 0.25, "lmbda": 0.8, "ks": 41}
    settings["backend"] = "reference"
    given = itertools.chain.from_iterable((f"--{name}", value) for name, value in settings.items())
    assert run(tmp_path / "a.npy", "--out", tmp_path / "out", *given) == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.npy"), weigh(cells(ids=(1, 2, 3)), **settings))


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_format_is_of_the_outputs(tmp_path, suffix):
    masks = [save(tmp_path / "a.npy", STACK), save(tmp_path / "b.tif", cells().astype(np.uint8))]
    assert run(*masks, "--out", tmp_path / "out", "--format", suffix) == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / f"a.{suffix}"), weigh(STACK))
    np.testing.assert_array_equal(load(tmp_path / "out" / f"b.{suffix}"), weigh(cells()))


# ------------------------------------------------------------------------------------------ what it cannot


def cut(path, share, labels=STACK, **how):
    save(path, labels.astype(np.uint16), **how)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def two_shapes(path):
    with tifffile.TiffWriter(path) as tif:
        tif.write(cells().astype(np.uint8))
        tif.write(cells()[:20].astype(np.uint8))


def with_value(value):
    labels = cells().astype(np.float64)
    labels[0, 0] = value
    return labels


COLOUR = np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8)
UNREADABLE = {
    "missing.tif": (lambda path: None, "No such file"),
    "folder.npy": (lambda path: path.mkdir(), "a directory: name the files in it"),
    "folder": (lambda path: path.mkdir(), "a directory: name the files in it"),
    "mask.jpg": (lambda path: Image.fromarray(COLOUR).save(path), ".jpg: only .tif, .tiff, .png, .npy"),
    "mask": (lambda path: path.write_bytes(b"?"), "no suffix"),
    "empty.tif": (lambda path: path.write_bytes(b""), "empty"),
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "empty.npy": (lambda path: path.write_bytes(b""), "empty"),
    "noise.tif": (lambda path: path.write_bytes(bytes(range(200))), "TIFF"),
    "noise.png": (lambda path: path.write_bytes(bytes(range(200))), "cannot identify"),
    "noise.npy": (lambda path: path.write_bytes(bytes(range(200))), "magic string"),
    "cut.npy": (lambda path: cut(path, 0.7), "all data"),
    "cut.png": (lambda path: cut(path, 0.7, cells()), "truncated"),
    "cut.tif": (lambda path: cut(path, 0.7), "failed to read"),
    "pages_lost.tif": (lambda path: cut(path, 0.6, metadata=None, compression="zlib"), ""),
    "pages_lost_between.tif": (lambda path: cut(path, 0.6, metadata=None), "damaged"),
    "rgb.png": (lambda path: save(path, COLOUR), "a picture in colour, not one number"),
    "rgba.png": (lambda path: save(path, in_colour(cells() * 300, ALPHA, coded=True)), "--colour-ids"),
    "rgb.npy": (lambda path: save(path, COLOUR), "--colour-ids"),
    "rgb.tif": (lambda path: tifffile.imwrite(path, COLOUR, photometric="rgb"), "colour"),
    "rgb16.png": (lambda path: path.write_bytes(imagecodecs.png_encode(COLOUR.astype(np.uint16))), "16 bits"),
    "three_pages_as_rgb.tif": (
        lambda path: tifffile.imwrite(path, STACK.astype("u2"), photometric="rgb", planarconfig="separate"),
        "photometric tag says RGB: where these are pages of ids, write them with tifffile.imwrite(..., "
        'photometric="minisblack")',
    ),
    "hyper.tif": (
        pages_of(np.stack([S8, S8]), "TZYX", imagej=True),
        "its axes are T 2, Z 3, Y 40, X 52: only one of them beside Y and X may be longer than 1",
    ),
    "half.npy": (lambda path: save(path, (cells() * 20).astype(np.float16)), "at most 2048"),
    "two_shapes.tif": (two_shapes, "2 images of different shapes"),
    "line.npy": (lambda path: save(path, np.zeros(5, dtype=int)), "[5]"),
    "four_d.npy": (lambda path: save(path, np.zeros((2, 2, 2, 2), dtype=int)), "[2, 2, 2, 2]"),
    "no_pixel.npy": (lambda path: save(path, np.zeros((0, 5), dtype=int)), "no pixel"),
    "complex.npy": (lambda path: save(path, np.zeros((5, 5), dtype=complex)), "complex128"),
    "object.npy": (lambda path: np.save(path, np.array([[None]]), allow_pickle=True), "allow_pickle"),
    "nan.npy": (lambda path: save(path, with_value(np.nan)), "nan"),
    "inf.tif": (lambda path: save(path, with_value(np.inf)), "inf"),
    "fraction.npy": (lambda path: save(path, with_value(0.5)), "0.5"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_bad_file_is_named_with_its_reason_and_the_others_go_on(tmp_path, name, capsys):
    write, why = UNREADABLE[name]
    before, after = (save(tmp_path / good, cells()) for good in ("before.npy", "after.npy"))
    write(tmp_path / name)
    assert run(before, tmp_path / name, after, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"{tmp_path / name}: ")
    assert why in line
    assert len(line) > len(f"{tmp_path / name}: ") + 5
    assert "2 written, 0 kept, 1 failed" in printed.out
    assert [path.name for path in outputs(tmp_path / "out")] == ["after.npy", "before.npy"]


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.tif", "lzw.tif", "b.ome.tif"])
def test_wherever_a_file_is_cut_off_it_is_told_in_words(tmp_path, name, capsys):
    how = dict(compression="lzw") if name == "lzw.tif" else dict(ome=True) if "ome" in name else {}
    whole = save(tmp_path / name, cells().astype(np.uint16), **how).read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    for size in [*range(1, 200, 7), *range(200, len(whole) - 1, len(whole) // 40)]:
        (folder / f"{size}{(tmp_path / name).suffix}").write_bytes(whole[:size])
    run(*sorted(folder.iterdir()), "--out", tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 15
    for line in lines:
        assert re.search("damaged|cut off", line) and "Traceback" not in line, line
    for output in outputs(tmp_path / "out"):  # what was cut were no pixels
        np.testing.assert_array_equal(load(output), weigh(cells()))


# ------------------------------------------------------------------------------------------------- outputs


def test_existing_outputs_are_kept_unless_overwrite(tmp_path, capsys):
    masks = [save(tmp_path / "a.npy", cells()), save(tmp_path / "b.npy", cells())]
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.npy").write_bytes(b"mine")
    assert run(*masks, "--out", out) == 0
    assert (out / "a.npy").read_bytes() == b"mine"
    printed = capsys.readouterr().out
    assert f"kept {out / 'a.npy'}" in printed
    assert "1 written, 1 kept, 0 failed" in printed

    assert run(*masks, "--out", out, "--overwrite") == 0
    np.testing.assert_array_equal(load(out / "a.npy"), weigh(cells()))
    assert "2 written, 0 kept, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_weights_made_from_something_else_are_no_success(suffix, tmp_path, capsys):
    mask, out = save(tmp_path / "a.npy", cells()), tmp_path / "out"
    given = ["--out", out, "--format", suffix]
    target = out / f"a.{suffix}"
    assert run(mask, *given, "--ignore-index", "3", "255") == 0
    for same in (["3", "255"], ["255", "3", "3"]):
        assert run(mask, *given, "--ignore-index", *same, "--bwf", "10.0", "--backend", "reference") == 0
        assert f"kept {target} (--overwrite replaces it)" in capsys.readouterr().out
    changes = {
        "bwf was 10.0, now 4.5": ["--ignore-index", "3", "255", "--bwf", "4.5"],
        "distance was logconv, now euclidean": ["--ignore-index", "3", "255", "--preset", "unet"],
        "ignore_index was [3, 255], now []": [],
        "colour_ids was False, now True": ["--ignore-index", "3", "255", "--colour-ids"],
    }
    before = target.read_bytes()
    for why, changed in changes.items():
        assert run(mask, *given, *changed) == 1
        printed = capsys.readouterr()
        assert f"{mask}: {target} is there, made from something else ({why}): --overwrite" in printed.err
        assert "0 written, 0 kept, 1 failed" in printed.out
    assert target.read_bytes() == before
    save(mask, cells(ids=(1, 2, 3)))
    assert run(mask, *given, "--ignore-index", "3", "255") == 1
    assert "the mask was another one" in capsys.readouterr().err

    assert run(mask, *given, "--bwf", "4.5", "--overwrite") == 0
    np.testing.assert_array_equal(load(target), weigh(cells(ids=(1, 2, 3)), bwf=4.5))
    assert run(mask, *given, "--bwf", "4.5") == 0
    assert "1 kept" in capsys.readouterr().out


def test_a_record_is_never_that_of_other_weights(tmp_path, monkeypatch):
    """Interrupted between weights and record, weights are without one."""
    mask, out = save(tmp_path / "a.npy", cells()), tmp_path / "out"
    assert run(mask, "--out", out) == 0
    monkeypatch.setattr(json, "dumps", lambda *_, **__: interrupt())
    assert run(mask, "--out", out, "--overwrite", "--bwf", "3") == 130
    assert [path.name for path in out.iterdir()] == ["a.npy"]
    np.testing.assert_array_equal(load(out / "a.npy"), weigh(cells(), bwf=3))


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_a_full_disk_is_told_in_words(name, tmp_path):
    """A limit to the size of files, which cuts writes short as a full disk does."""
    mask = save(tmp_path / name, np.kron(cells(), np.ones((20, 20), int)).astype(np.uint8))
    program = (
        "import resource, sys; from fastlogconv.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "weights", mask, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{mask}: ") and re.search("is the disk full|File too large", line)
    assert list((tmp_path / "out").iterdir()) == []


def test_two_masks_of_one_name_are_both_refused(tmp_path, capsys):
    for folder in "xy":
        (tmp_path / folder).mkdir()
    one, two, other = tmp_path / "x" / "a.tif", tmp_path / "y" / "a.png", tmp_path / "y" / "b.png"
    for path in (one, two, other):
        save(path, cells().astype(np.uint8))
    photograph = tmp_path / "b.jpg"  # which cannot be read: no rival of b.png
    assert run(one, two, other, photograph, "--out", tmp_path / "out") == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{one}: ") and str(two) in first
    assert second.startswith(f"{two}: ") and str(one) in second
    assert third.startswith(f"{photograph}: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.tif"]


def test_a_mask_named_twice_is_one_mask(tmp_path, capsys, monkeypatch):
    save(tmp_path / "a.npy", cells())
    monkeypatch.chdir(tmp_path)
    assert run("a.npy", "./a.npy", tmp_path / "a.npy", "--out", "out") == 0
    assert "1 written, 0 kept, 0 failed" in capsys.readouterr().out


def test_a_mask_is_never_overwritten(tmp_path, capsys):
    mask = save(tmp_path / "a.tif", cells().astype(np.uint8))
    content = mask.read_bytes()
    assert run(mask, "--out", tmp_path, "--overwrite") == 1
    assert mask.read_bytes() == content
    assert "would overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_output_and_no_other(
    tmp_path, monkeypatch, name, problem, capsys
):
    def half(file, *_, **__):
        file.write(b"half a file")
        raise problem

    mask = save(tmp_path / name, cells())
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"old")
    monkeypatch.setattr(np, "save", half)
    monkeypatch.setattr(tifffile, "imwrite", half)
    status = run(mask, "--out", out, "--overwrite")
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_bytes() == b"old"
    if isinstance(problem, KeyboardInterrupt):
        assert status == 130
    else:
        assert status == 1
        assert "No space left on device" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- usage and manners


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--bws", "0"], "bws"),
        (["--fds", "nan"], "fds"),
        (["--lmbda", "-1"], "lmbda"),
        (["--ks", "0"], "ks"),
        (["--ks", "7.5"], "ks"),
        (["--ks", "None"], "ks"),
        (["--ignore-index", "a"], "ignore-index"),
        (["--ignore-index", "3", "b.tif"], "'b.tif' is no whole number: labels are; name the masks before"),
        (["--ignore-index", str(2**63)], "2**63"),
        (["--distance", "no-distance-at-all"], "distance"),
        (["--preset", "best"], "preset"),
        (["--border", "no-rule-at-all"], "second_nearest"),
        (["--backend", "abacus"], "reference"),
        (["--format", "png"], "npy"),
        (["--out", __file__], "not a folder"),
        (["--out", f"{__file__}/below/a/file"], "cannot be written: Not a directory"),
        (["--out", "/proc/no/such/folder"], "cannot be written: "),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(tmp_path, capsys, arguments, why):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "missing.tif", "--out", tmp_path / "out", *arguments)
    assert stop.value.code == 2
    assert why in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["weights"], ["weights", "a.tif"], ["wieghts", "a.tif"]])
def test_incomplete_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: fastlogconv" in capsys.readouterr().err


def test_quiet_prints_errors_only(tmp_path, capsys):
    mask = save(tmp_path / "a.npy", cells())
    for _ in range(2):  # written, then kept
        assert run(mask, "--out", tmp_path / "out", "--quiet") == 0
    assert run(tmp_path / "b.npy", "--out", tmp_path / "out", "--quiet") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{tmp_path / 'b.npy'}: No such file or directory\n"


@pytest.mark.parametrize(
    ("tty", "arguments", "bar"), [(True, [], True), (True, ["--quiet"], False), (False, [], False)]
)
def test_progress_bar_is_for_terminals(tmp_path, monkeypatch, tty, arguments, bar):
    stderr = io.StringIO()
    stderr.isatty = lambda: tty
    monkeypatch.setattr(sys, "stderr", stderr)
    assert run(save(tmp_path / "a.npy", cells()), "--out", tmp_path / "out", *arguments) == 0
    assert ("1/1" in stderr.getvalue()) == bar


@pytest.mark.parametrize(
    ("command", "module"), [("demo", "matplotlib"), ("demo", "skimage"), ("weights", "tifffile")]
)
def test_missing_extra_is_one_clear_line(tmp_path, monkeypatch, capsys, command, module):
    for name in list(sys.modules):
        if name.split(".")[0] == module or name.startswith("fastlogconv.cli"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(fastlogconv, "cli", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    masks = {"demo": [], "weights": ["a.tif"]}
    assert main([command, *masks[command], "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert module in line
    assert f'pip install "fastlogconv[{dict(demo="demo", weights="cli")[command]}]"' in line
    assert not (tmp_path / "out").exists()


def test_demo_tells_first_where_it_cannot_write(monkeypatch, capsys):
    monkeypatch.setattr(demo, "run", lambda out: pytest.fail("it was run"))
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--out", "/proc/no/such/folder"])
    assert stop.value.code == 2
    assert "usage: fastlogconv demo" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fastlogconv {fastlogconv.__version__}\n"


def test_a_pipe_that_is_closed_ends_it_silently(tmp_path):
    save(tmp_path / "a.npy", cells())
    for arguments in (["info"], ["weights", tmp_path / "a.npy", "--out", tmp_path / "out"]):
        command = [sys.executable, "-m", "fastlogconv", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 141


def test_arrays_need_no_other_library(tmp_path):
    mask = save(tmp_path / "a.npy", cells())
    program = (
        "import sys\n"
        "for name in ('matplotlib', 'skimage', 'scipy', 'PIL', 'tifffile', 'imagecodecs', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "from fastlogconv.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    for expected in ("1 written, 0 kept", "0 written, 1 kept"):
        command = [sys.executable, "-c", program, "weights", mask, "--out", tmp_path / "out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.npy"), weigh(cells()))


def test_python_m(tmp_path):
    mask = save(tmp_path / "a.png", cells().astype(np.uint8))
    command = [
        sys.executable,
        "-m",
        "fastlogconv",
        "weights",
        mask,
        tmp_path / "b.png",
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "1 written, 0 kept, 1 failed\n"
    assert done.stderr == f"{tmp_path / 'b.png'}: No such file or directory\n"
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.tif"), weigh(cells()))
