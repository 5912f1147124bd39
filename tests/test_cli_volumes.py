"""The command line: volumes, and the axes and lengths that files tell."""

import numpy as np
import pytest
import tifffile
import torch
from cli_files import STACK, cells, load, run, save

import fastlogconv


def volume(depth=5, ids=(3, 200, 7)):
    """Two of three cells in the middle slices alone, uint8 [D, H, W]."""
    labels = np.stack([cells(ids=ids)] * depth).astype(np.uint8)
    labels[0][labels[0] == ids[0]] = labels[-1][labels[-1] == ids[1]] = 0
    return labels


def weigh(labels, **settings):
    labels = torch.from_numpy(np.ascontiguousarray(labels))
    return fastlogconv.weight_map(labels, spatial_dims=3, **settings).numpy()


V = volume()
BATCH = np.stack([V, volume(ids=(1, 2, 3))])  # [B, D, H, W]
CALIBRATED = {  # name: (options of imwrite, lengths of a pixel in micrometres)
    "imagej": (
        dict(imagej=True, resolution=(2, 2), metadata=dict(axes="ZYX", spacing=2.0, unit="um")),
        (2, 0.5, 0.5),
    ),
    "imagej_nm": (
        dict(imagej=True, resolution=(0.005, 0.004), metadata=dict(axes="ZYX", spacing=900, unit="nm")),
        (0.9, 0.25, 0.2),
    ),
    "imagej_leaves_one_out": (
        dict(imagej=True, resolution=(5, 5), metadata=dict(axes="ZYX", unit="micron")),
        (1, 0.2, 0.2),
    ),
    "ome": (
        dict(ome=True, metadata=dict(axes="ZYX", PhysicalSizeX=0.5, PhysicalSizeY=0.5, PhysicalSizeZ=2)),
        (2, 0.5, 0.5),
    ),
    "ome_units": (
        dict(
            ome=True,
            metadata=dict(
                axes="ZYX", PhysicalSizeX=300, PhysicalSizeXUnit="nm", PhysicalSizeY=0.3,
                PhysicalSizeZ=0.0012, PhysicalSizeZUnit="mm",
            ),
        ),
        (1.2, 0.3, 0.3),
    ),
    "pages_by_tifffile": (
        dict(resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=dict(spacing=1e-4)),
        (1, 0.5, 0.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALIBRATED)
def test_spacing_of_the_file(name, tmp_path, capsys):
    how, lengths = CALIBRATED[name]
    mask = tmp_path / f"{name}.tif"
    tifffile.imwrite(mask, V, photometric="minisblack", **how)
    out = tmp_path / "out"
    given = [mask, "--out", out, "--spatial-dims", "3", "--preset", "unet2019"]
    target = out / mask.name

    assert run(*given) == 0
    spacing = tuple(float(f"{length / min(lengths[1:]):.6g}") for length in lengths)
    np.testing.assert_array_equal(load(target), weigh(V, preset="unet2019", spacing=spacing))
    told = " ".join(f"{length:g}" for length in lengths)
    by_pixel = " ".join(f"{length:g}" for length in spacing)
    assert (
        f"written {target} (spacing {by_pixel}, as the file tells {told} micron)" in capsys.readouterr().out
    )

    assert run(*given, "--spacing", "file") == 1  # those that are there have another
    assert "spacing of the file was pixels, now file" in capsys.readouterr().err
    assert run(*given, "--spacing", "file", "--overwrite") == 0
    np.testing.assert_allclose(load(target), weigh(V, preset="unet2019", spacing=lengths), rtol=1e-6)
    assert f"spacing {told} micron, from the file" in capsys.readouterr().out

    assert run(*given, "--spacing", *map(str, (3, 1, 2)), "--overwrite") == 0
    np.testing.assert_array_equal(load(target), weigh(V, preset="unet2019", spacing=(3, 1, 2)))
    assert run(*given, "--spacing", *map(str, (3, 1, 2))) == 0
    assert "1 kept" in capsys.readouterr().out

    with tifffile.TiffFile(target) as tif:  # as a mask again: axes and lengths are those of the mask
        assert tif.series[0].axes == "ZYX"
        assert tif.imagej_metadata["spacing"] == pytest.approx(lengths[0])
        assert tif.imagej_metadata["unit"] == "micron"
        resolution = [tif.pages[0].tags[f"{axis}Resolution"].value for axis in "YX"]
        assert [b / a for a, b in resolution] == pytest.approx(lengths[1:])


SILENT = {
    "pages": dict(),
    "ome": dict(ome=True, metadata=dict(axes="ZYX")),
    "imagej": dict(imagej=True, metadata=dict(axes="ZYX")),
    "printer": dict(resolution=(72, 72), resolutionunit="INCH"),
    "units": dict(
        ome=True,
        metadata=dict(axes="ZYX", PhysicalSizeX=1, PhysicalSizeXUnit="pixel", PhysicalSizeY=1,
                      PhysicalSizeYUnit="pixel", PhysicalSizeZ=2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SILENT, "npy"])
def test_a_file_that_does_not_tell_all(name, tmp_path, capsys):
    mask = tmp_path / ("a.npy" if name == "npy" else "a.tif")
    if name == "npy":
        save(mask, V)
    else:
        tifffile.imwrite(mask, V, photometric="minisblack", **SILENT[name])
    given = [mask, "--out", tmp_path / "out", "--spatial-dims", "3"]
    assert run(*given) == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / mask.name), weigh(V))
    assert "(spacing 1 1 1, for the file tells none: --spacing gives one)" in capsys.readouterr().out
    assert run(*given, "--spacing", "file", "--overwrite") == 1
    assert "--spacing file: the file tells none for Z, Y, X" in capsys.readouterr().err


PARTLY = {  # name: (how, what is said)
    "ome": (
        dict(ome=True, metadata=dict(axes="ZYX", PhysicalSizeX=0.5, PhysicalSizeY=0.25)),
        "the file tells 0.25 0.5 micron along Y, X and nothing along Z: --spacing with 3 numbers says what",
    ),
    "ome_negative": (
        dict(ome=True, metadata=dict(axes="ZYX", PhysicalSizeX=0.5, PhysicalSizeY=0.5, PhysicalSizeZ=-2)),
        "the file tells 0.5 0.5 micron along Y, X and nothing along Z",
    ),
    "depth": (
        dict(ome=True, metadata=dict(axes="ZYX", PhysicalSizeZ=2)),
        "the file tells 2 micron along Z and nothing along Y, X",
    ),
    "zero": (
        dict(imagej=True, resolution=(4, 4), metadata=dict(axes="ZYX", spacing=0.0, unit="um")),
        "the file tells 0.25 0.25 micron along Y, X and nothing along Z",
    ),
}


@pytest.mark.parametrize("name", PARTLY)
def test_a_file_that_tells_lengths_of_some_axes_alone(name, tmp_path, capsys):
    """They would be wrong without the others: neither taken nor left aside silently."""
    how, why = PARTLY[name]
    mask = tmp_path / "a.tif"
    tifffile.imwrite(mask, V, photometric="minisblack", **how)
    given = [mask, "--out", tmp_path / "out", "--spatial-dims", "3"]
    assert run(*given) == 1
    assert why in capsys.readouterr().err
    assert run(*given, "--spacing", "file") == 1
    assert "--spacing file: the file tells none for Z, Y, X" in capsys.readouterr().err
    assert run(*given, "--spacing", "4", "1", "1") == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.tif"), weigh(V, spacing=(4, 1, 1)))


def test_a_negative_spacing_is_read_as_imagej_does(tmp_path, capsys):
    mask = tmp_path / "a.tif"
    tifffile.imwrite(mask, V, imagej=True, metadata=dict(axes="ZYX", spacing=-3, unit="um"))
    assert run(mask, "--out", tmp_path / "out", "--spatial-dims", "3") == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.tif"), weigh(V, spacing=(3, 1, 1)))
    assert capsys.readouterr().err == f"{mask}: its spacing along Z is -3; taken for 3, as ImageJ does\n"


def test_lengths_in_pixels_are_relative_alone(tmp_path, capsys):
    mask = tmp_path / "a.tif"
    tifffile.imwrite(mask, V, imagej=True, metadata=dict(axes="ZYX", spacing=4, unit="pixel"))
    assert run(mask, "--out", tmp_path / "out", "--spatial-dims", "3") == 0
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.tif"), weigh(V, spacing=(4, 1, 1)))
    assert run(mask, "--out", tmp_path / "other", "--spatial-dims", "3", "--spacing", "file") == 1
    assert "the file tells 4 1 1 pixel for Z, Y, X, no lengths in micrometres" in capsys.readouterr().err


BATCHES = {  # name: (labels as the file has them, how, axes of the output)
    "time.tif": (BATCH, dict(imagej=True, metadata=dict(axes="TZYX")), "TZYX"),
    "time.ome.tif": (BATCH, dict(ome=True, metadata=dict(axes="TZYX")), "TZYX"),
    "channels.tif": (BATCH.swapaxes(0, 1), dict(imagej=True, metadata=dict(axes="ZCYX")), "ZCYX"),
    "channels.ome.tif": (BATCH, dict(ome=True, metadata=dict(axes="CZYX")), "CZYX"),
    "unnamed.tif": (BATCH, dict(), "QZYX"),
    "z_last.tif": (np.moveaxis(V, 0, -1), dict(metadata=dict(axes="YXZ")), "ZYX"),
    "batch.npy": (BATCH, {}, None),
    "channel.npy": (BATCH[..., None], {}, None),
    "one_volume_with_a_channel.npy": (V[..., None], {}, None),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("given", [(), (4, 1, 1)])
def test_axes_of_a_batch_are_kept(name, given, tmp_path):
    labels, how, axes = BATCHES[name]
    mask = tmp_path / name
    if axes:
        tifffile.imwrite(mask, np.ascontiguousarray(labels), photometric="minisblack", **how)
    else:
        save(mask, labels)
    arguments = ["--spacing", *map(str, given)] if given else []
    assert run(mask, "--out", tmp_path / "out", "--spatial-dims", "3", *arguments) == 0
    weights = load(tmp_path / "out" / name)
    plain = V if labels.size == V.size else BATCH
    expected = weigh(plain, spacing=given or None)
    if axes == "ZCYX":
        expected = expected.swapaxes(0, 1)
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, expected if axes else expected.reshape(labels.shape))
    if axes:
        with tifffile.TiffFile(tmp_path / "out" / name) as tif:
            assert tif.series[0].axes == axes
            about = tif.imagej_metadata or tif.shaped_metadata[0]
            assert about.get("spacing") == (4 if given else None)


def test_slices_where_they_are_asked_for(tmp_path):
    mask = tmp_path / "a.tif"
    tifffile.imwrite(mask, STACK.astype(np.uint8), imagej=True, resolution=(4, 4),
                     metadata=dict(axes="ZYX", spacing=2.0, unit="um"))  # fmt: skip
    assert run(mask, "--out", tmp_path / "out", "--spatial-dims", "2") == 0
    expected = fastlogconv.weight_map(torch.from_numpy(STACK)).numpy()
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.tif"), expected)
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as tif:
        assert tif.series[0].axes == "ZYX" and tif.imagej_metadata["spacing"] == 2


def test_spacing_of_images(tmp_path, capsys):
    mask = tmp_path / "a.tif"
    how = dict(imagej=True, resolution=(1, 2), metadata=dict(axes="YX", unit="um"))
    tifffile.imwrite(mask, cells().astype(np.uint8), **how)
    given = [mask, "--preset", "unet2019", "--out"]
    assert run(*given, tmp_path / "plain") == 0  # images are weighed in pixels unless it is asked for
    labels = torch.from_numpy(cells())
    expected = fastlogconv.weight_map(labels, preset="unet2019").numpy()
    np.testing.assert_array_equal(load(tmp_path / "plain" / "a.tif"), expected)
    assert run(*given, tmp_path / "out", "--spacing", "file") == 0
    expected = fastlogconv.weight_map(labels, preset="unet2019", spacing=(0.5, 1)).numpy()
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.tif"), expected)
    assert "spacing 0.5 1 micron, from the file" in capsys.readouterr().out


NO_VOLUMES = {
    "time.tif": (
        dict(imagej=True, metadata=dict(axes="TYX")),
        V,
        "its axes are T 5, Y 40, X 52, so there is",
    ),
    "flat.tif": (dict(), V[0], "its axes are Y 40, X 52, so there is no volume in it"),
    "hyper.tif": (
        dict(imagej=True, metadata=dict(axes="TZCYX")),
        np.stack([np.stack([V, V], 1)] * 2),
        "its axes are T 2, Z 5, C 2, Y 40, X 52: only one of them beside Z, Y and X may be longer than 1",
    ),
    "flat.npy": (None, V[0], "its shape is [40, 52]: only [D, H, W] and [B, D, H, W] can be weighed"),
    "flat.png": (None, V[0], "its shape is [40, 52]: only [D, H, W] and [B, D, H, W] can be weighed"),
    "colour.npy": (None, np.stack([V, V, V // 2], -1), "a picture in colour"),
}


@pytest.mark.parametrize("name", NO_VOLUMES)
def test_what_is_no_volume(name, tmp_path, capsys):
    how, labels, why = NO_VOLUMES[name]
    if how is None:
        save(tmp_path / name, labels)
    else:
        tifffile.imwrite(tmp_path / name, labels, photometric="minisblack", **how)
    assert run(tmp_path / name, "--out", tmp_path / "out", "--spatial-dims", "3") == 1
    assert why in capsys.readouterr().err


def test_bad_metadata_is_no_reason_to_refuse_labels(tmp_path, capsys):
    """Sizes that are no numbers, in XML that is read all the same."""
    mask = tmp_path / "a.ome.tif"
    how = dict(axes="ZYX", PhysicalSizeX=0.5, PhysicalSizeY=0.5, PhysicalSizeZ=77777)
    tifffile.imwrite(mask, V, ome=True, metadata=how)
    mask.write_bytes(mask.read_bytes().replace(b"77777", b"a/bit"))
    assert run(mask, "--out", tmp_path / "out", "--spatial-dims", "3") == 0
    assert "the file tells none" in capsys.readouterr().out
