"""The command line: `python -m fastlogconv`, or `fastlogconv` where it is installed."""

import argparse
import os
import sys
from pathlib import Path

import torch

import fastlogconv
from fastlogconv.settings import (
    BY_PRESET,
    DEFAULT_PRESET,
    DEFAULTS,
    NAMES,
    PRESET_OF_VOLUMES,
    PRESETS,
    RULES,
    SETTINGS,
    WeightSettings,
    check_preset,
)  # fmt: skip

WEIGHTS = """\
Write one weight image (float32) for each label image: DIR/NAME.tif, or DIR/NAME.npy for an .npy. 0 is
background, every other number an instance. A batch of images is a 3-D .npy, or a .tif with one axis beside Y
and X: pages, time or channels, each a 2-D image of its own. Of a .tif with a z axis --spatial-dims says what
it is: 3, a volume (or a batch of volumes); 2, a batch of slices. In volumes the spacing is what the .tif
tells (ImageJ, OME), as multiples of the shorter side of a pixel in the plane: --bws 6 is six such pixels
there, as in images; with --spacing file it is micrometres; with numbers, their unit. An .npy [H, W, 1] gives
weights [H, W, 1]. Pictures in colour are taken where they are grey, or with --colour-ids. What weights were
made from stands in the .tif, or beside the .npy in NAME.npy.json; existing weights that were made from
something else, or nobody knows from what, count as failed, damaged ones are written again. A .tif keeps the
axes and the lengths of the mask's pixels.
Exit status: 0 all written or kept, 1 some failed, 2 wrong usage."""

PIPE_CLOSED = 141  # as a shell tells of a program that SIGPIPE ended


def whole_number_or_none(text):
    return None if text == "none" else int(text)


def label(text):
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number: labels are; name the masks before the options"
        ) from None


def length_or_file(text):
    try:
        return text if text == "file" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number nor file; name the masks before the options"
        ) from None


def preset(name):
    try:
        check_preset(name)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
    return name


_KINDS = {  # of settings: what an option of theirs is beside its type
    "flag": {"action": argparse.BooleanOptionalAction},
    "spacing": {"type": length_or_file, "nargs": "+", "metavar": "LENGTH"},
}
TYPES = {"float": float, "int | None": whole_number_or_none}


def build_parser():
    parser = argparse.ArgumentParser(prog="fastlogconv", description="Pixel weights for segmentation.")
    parser.add_argument("--version", action="version", version=f"fastlogconv {fastlogconv.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="print versions, and which backends can run here")

    demo = commands.add_parser("demo", help="weigh a photograph of coins: a table and a figure")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: ./demo")

    weights = commands.add_parser("weights", help="turn label images into weight images", description=WEIGHTS)
    weights.add_argument("masks", nargs="+", type=Path, metavar="MASK", help=".tif, .tiff, .png or .npy")
    weights.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if it is not there")
    weights.add_argument("--format", choices=["tif", "npy"], help="of the outputs, whatever the inputs are")
    weights.add_argument("--overwrite", action="store_true", help="replace existing outputs, else kept")
    weights.add_argument("--quiet", action="store_true", help="print errors only")
    weights.add_argument(
        "--colour-ids",
        action="store_true",
        help="take colours for ids R + 256 G + 65536 B, as in COCO's panoptic PNGs",
    )
    weights.add_argument(
        "--preset",
        type=preset,
        metavar="{" + ",".join(PRESETS) + "}",
        help=f"what chooses {', '.join(BY_PRESET)} "
        f"(default: {DEFAULT_PRESET}, of volumes {PRESET_OF_VOLUMES})",
    )
    weights.add_argument(
        "--spatial-dims",
        type=int,
        choices=(2, 3),
        help="2: images, or a batch of them; 3: volumes, or a batch (default: 2, but no .tif with a z axis)",
    )
    for name, setting in SETTINGS.items():
        rules = "; ".join(f"{rule.name}: {rule.meaning}" for rule in RULES.get(name, {}).values())
        meaning = setting.metadata["meaning"] + (f": {rules}" if rules else "")
        default = "that of the preset" if name in BY_PRESET else "%(default)s"
        if name == "spacing":
            meaning += "; file: in micrometres, from the .tif"
            default = "1 along each, in volumes what the .tif tells, in pixels of the plane"
        weights.add_argument(
            f"--{name.replace('_', '-')}",
            default=None if name in BY_PRESET else DEFAULTS[name],
            help=f"{meaning} (default: {default})",
            **_KINDS.get(setting.metadata["kind"], {"type": TYPES.get(setting.type, str)}),
        )
    weights.add_argument(
        "--ignore-index",
        type=label,
        nargs="+",
        metavar="LABEL",
        help="labels of pixels to ignore: their weight is 0, and they belong to no instance",
    )
    weights.add_argument(
        "--backend",
        default="auto",
        help="what computes it: a name that `fastlogconv info` lists, or auto (default: %(default)s)",
    )
    for command in (info, demo, weights):
        command.set_defaults(parser=command)
    return parser


def main(argv=None):
    """Runs one subcommand and returns the exit status."""
    try:
        try:
            return run(build_parser().parse_args(argv))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `fastlogconv info | head`
        forget_output()
        return PIPE_CLOSED
    except OSError as problem:  # of files there is told elsewhere: `fastlogconv info > /dev/full`
        forget_output()
        about = f"{problem.filename}: " if problem.filename else ""
        print(f"fastlogconv: {about}{problem.strerror or problem}", file=sys.stderr)
        return 1


def forget_output():
    """What could not be printed is not tried again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(options):
    if options.command == "info":
        print(fastlogconv.info())
        return 0
    settings, spacing = settings_of(options) if options.command == "weights" else (None, None)
    try:
        if options.command == "demo":
            from fastlogconv.cli import demo
        else:
            from fastlogconv.cli import weights

            weights.import_what_is_needed(options.masks, options.format)
    except ModuleNotFoundError as missing:
        if missing.name.startswith("fastlogconv"):
            raise
        extra = "demo" if options.command == "demo" else "cli"
        print(
            f'fastlogconv {options.command} needs {missing.name}: pip install "fastlogconv[{extra}]"',
            file=sys.stderr,
        )
        return 1
    check_out(options)
    if options.command == "demo":
        return demo.run(options.out)
    what = dict(
        settings=settings,
        ignore_index=options.ignore_index,
        colour_ids=options.colour_ids,
        spatial_dims=options.spatial_dims,
        spacing=spacing,
    )
    return weights.run(
        options.masks, options.out, what, options.backend, options.format, options.overwrite, options.quiet
    )


def settings_of(options):
    """(the settings, how to take the spacing of files), tried on one pixel; leaves with the usage where they
    are refused."""
    dims = options.spatial_dims or 2
    given = {name: getattr(options, name) for name in NAMES}
    if given["spacing"] and len(given["spacing"]) == 3 and dims == 2:
        options.parser.error("--spacing along 3 axes is for volumes: add --spatial-dims 3")
    of_file = "pixels" if dims == 3 and given["spacing"] is None else None
    if given["spacing"] == ["file"]:
        of_file, given["spacing"] = "file", None
    given["spacing"] = given["spacing"] and tuple(given["spacing"])
    given = {name: value for name, value in given.items() if value is not None or name not in BY_PRESET}
    chosen = options.preset or (DEFAULT_PRESET if dims == 2 else PRESET_OF_VOLUMES)
    try:
        settings = WeightSettings.preset(chosen, **given)
        one_pixel = torch.zeros((1,) * dims, dtype=torch.int32)
        fastlogconv.weight_map(
            one_pixel,
            settings=settings,
            ignore_index=options.ignore_index,
            spatial_dims=dims,
            backend=options.backend,
        )
    except (TypeError, ValueError, RuntimeError) as problem:
        options.parser.error(str(problem))
    return settings, of_file


def check_out(options):
    """Leaves with the usage where nothing can be written into --out, before anything is computed."""
    from fastlogconv.cli.writing import check_writable

    if options.out.exists() and not options.out.is_dir():
        options.parser.error(f"--out {options.out} is a file, not a folder")
    try:
        check_writable(options.out)
    except OSError as problem:
        options.parser.error(f"--out {options.out} cannot be written: {problem.strerror or problem}")


if __name__ == "__main__":
    sys.exit(main())
