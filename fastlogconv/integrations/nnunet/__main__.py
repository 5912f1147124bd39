"""`python -m fastlogconv.integrations.nnunet`: the folder for nnUNet_extTrainer, and `add-instances`."""

from __future__ import annotations

import argparse

from . import trainers
from .instances import FOLDER, add_instances


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m fastlogconv.integrations.nnunet",
        description="Prints the folder of the trainers, for nnUNet_extTrainer.",
    )
    commands = parser.add_subparsers(dest="command")
    adding = commands.add_parser(
        "add-instances", help="instance ids as a second channel of preprocessed segmentations"
    )
    adding.add_argument("dataset", help="its number or its name")
    adding.add_argument("configurations", nargs="+", help="such as 2d 3d_fullres")
    adding.add_argument("--plans", default="nnUNetPlans", help="their name (default: %(default)s)")
    adding.add_argument(
        "--folder", default=FOLDER, help="of the ids, in the raw dataset (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.command is None:
        print(trainers.__path__[0])
        return
    dataset = int(args.dataset) if args.dataset.isdigit() else args.dataset
    try:
        number = add_instances(dataset, args.configurations, plans=args.plans, folder=args.folder)
    except (FileNotFoundError, ValueError) as problem:
        adding.error(str(problem))
    print(f"instance ids added to {number} segmentations")


if __name__ == "__main__":
    main()
