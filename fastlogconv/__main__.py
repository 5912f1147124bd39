"""The command line: `python -m fastlogconv`, or `fastlogconv` where it is installed."""

import argparse
import inspect
import sys
from pathlib import Path

import torch

import fastlogconv
from fastlogconv.rules import BORDERS, DISTANCES
from fastlogconv.settings import DEFAULT_PRESET, PRESETS, SETTINGS

# What an option says: a setting's own meaning, and what rules or presets there are.
MEANINGS = {name: field.metadata["meaning"] for name, field in SETTINGS.items()} | {
    "ignore_index": "the label of pixels to ignore: their weight is 0",
    "backend": "what computes it: a name that `fastlogconv info` lists, or auto",
}
RULES = {"distance": DISTANCES, "border": BORDERS}


WEIGHTS = """\
Write one weight image (float32) for each label image: DIR/NAME.tif, or DIR/NAME.npy for an .npy. 0 is
background, every other number an instance; a multi-page .tif and a 3-D .npy are batches of images.
Exit status: 0 all written or kept, 1 some failed, 2 wrong usage."""


def whole_number_or_none(text):
    return None if text == "none" else int(text)


TYPES = {"ks": whole_number_or_none, "ignore_index": int}


def build_parser():
    parser = argparse.ArgumentParser(prog="fastlogconv", description="Pixel weights for segmentation.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("info", help="print versions, and which backends can run here")

    demo = commands.add_parser("demo", help="weigh a photograph of coins: a table and a figure")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: ./demo")

    weights = commands.add_parser("weights", help="turn label images into weight images", description=WEIGHTS)
    weights.add_argument("masks", nargs="+", type=Path, metavar="MASK", help=".tif, .tiff, .png or .npy")
    weights.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if it is not there")
    weights.add_argument("--format", choices=["tif", "npy"], help="of the outputs, whatever the inputs are")
    weights.add_argument("--overwrite", action="store_true", help="replace existing outputs, else kept")
    weights.add_argument("--quiet", action="store_true", help="print errors only")
    weights.add_argument(
        "--preset",
        choices=PRESETS,
        default=DEFAULT_PRESET,
        help=f"what chooses {', '.join(PRESETS[DEFAULT_PRESET])} (default: %(default)s)",
    )
    parameters = inspect.signature(fastlogconv.weight_map).parameters
    for name, meaning in MEANINGS.items():
        default = parameters[name].default
        by_preset = name in PRESETS[DEFAULT_PRESET]
        rules = "; ".join(f"{rule.name}: {rule.meaning}" for rule in RULES.get(name, {}).values())
        meaning = f"{meaning}: {rules}" if rules else meaning
        weights.add_argument(
            f"--{name.replace('_', '-')}",
            type=TYPES.get(name, float if isinstance(default, float) else str),
            default=None if by_preset else default,
            help=f"{meaning} (default: {'that of the preset' if by_preset else '%(default)s'})",
        )
    weights.set_defaults(parser=weights)
    return parser


def main(argv=None):
    """Runs one subcommand and returns the exit status."""
    options = build_parser().parse_args(argv)
    if options.command == "info":
        print(fastlogconv.info())
        return 0
    try:
        from fastlogconv.cli import demo, weights
    except ModuleNotFoundError as missing:
        if missing.name.startswith("fastlogconv"):
            raise
        print(
            f'fastlogconv {options.command} needs {missing.name}: pip install "fastlogconv[cli]"',
            file=sys.stderr,
        )
        return 1
    if options.command == "demo":
        return demo.run(options.out)
    given = {name: getattr(options, name) for name in MEANINGS}
    chosen = PRESETS[options.preset]
    settings = {**given, **{name: chosen[name] for name in chosen if given[name] is None}}
    try:
        fastlogconv.weight_map(torch.zeros(1, 1, dtype=torch.int32), **settings)
    except (TypeError, ValueError, RuntimeError) as problem:
        options.parser.error(str(problem))
    if options.out.exists() and not options.out.is_dir():
        options.parser.error(f"--out {options.out} is a file, not a folder")
    try:
        return weights.run(
            options.masks, options.out, settings, options.format, options.overwrite, options.quiet
        )
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
