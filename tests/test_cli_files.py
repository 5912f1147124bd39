"""The command line: which files it reads, and in which words it refuses others."""

import itertools
import os
import re

import imagecodecs
import numpy as np
import pytest
import tifffile
from cli_files import STACK, cells, load, outputs, run, save, weigh
from PIL import Image

# ---------------------------------------------------------------------------------------- what it can read


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
    "channels.tif": (pages_of(S8, "CYX", imagej=True), STACK),
    "hyperstack.tif": (pages_of(S8[:, None], "TCYX", imagej=True), STACK),
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
        (["--preset", "deepflash2_offline"], dict(distance="euclidean")),
        (["--preset", "deepflash2"], dict(border="farthest", bwf=1)),
        (["--preset", "deepflash2_offline", "--bwf", "0", "--border", "farthest"],
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
# Of an array that is cut off NumPy says it in words since 2.3.
NUMPY_ON_CUT = "all data" if np.lib.NumpyVersion(np.__version__) >= "2.3.0" else "cannot reshape array"
UNREADABLE = {
    "missing.tif": (lambda path: None, "No such file"),
    "folder.npy": (lambda path: path.mkdir(), "a directory: name the files in it"),
    "pipe.tif": (os.mkfifo, "no file: a pipe or a device"),
    "folder": (lambda path: path.mkdir(), "a directory: name the files in it"),
    "mask.jpg": (lambda path: Image.fromarray(COLOUR).save(path), ".jpg: only .tif, .tiff, .png, .npy"),
    "mask": (lambda path: path.write_bytes(b"?"), "no suffix"),
    "empty.tif": (lambda path: path.write_bytes(b""), "empty"),
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "empty.npy": (lambda path: path.write_bytes(b""), "empty"),
    "noise.tif": (lambda path: path.write_bytes(bytes(range(200))), "TIFF"),
    "noise.png": (lambda path: path.write_bytes(bytes(range(200))), "cannot identify"),
    "noise.npy": (lambda path: path.write_bytes(bytes(range(200))), "magic string"),
    "cut.npy": (lambda path: cut(path, 0.7), NUMPY_ON_CUT),
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
        "a stack of slices, for its axes are T 2, Z 3, Y 40, X 52: --spatial-dims 3 weighs it as a volume",
    ),
    "time_and_channels.tif": (
        pages_of(np.stack([S8, S8]), "TCYX", imagej=True),
        "its axes are T 2, C 3, Y 40, X 52: only one of them beside Y and X may be longer than 1",
    ),
    "z.ome.tif": (
        pages_of(S8, "ZYX", ome=True),
        "a stack of slices, for its axes are Z 3, Y 40, X 52: --spatial-dims 3 weighs it as a volume, "
        "--spatial-dims 2 each slice by itself",
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
