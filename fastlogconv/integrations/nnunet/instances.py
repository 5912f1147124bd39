"""Instance ids into what nnU-Net has preprocessed: a second channel of each segmentation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, infer_dataset_class
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

FOLDER = "instancesTr"
HIGHEST = 2**15 - 1  # nnU-Net keeps segmentations as int16


def add_instances(
    dataset: int | str, configurations: Sequence[str], *, plans: str = "nnUNetPlans", folder: str = FOLDER
) -> int:
    """Adds the ids in `folder`, beside labelsTr, to a dataset that nnU-Net has preprocessed.

    They are cropped and resampled as nnU-Net does with labels. labelsTr stays what nnU-Net knows, classes, so
    that its planning and its evaluation go on as they are. Done twice it replaces the ids. nnU-Net's own
    trainers take no such data: preprocess again for them.

    Args:
        dataset: its number or its name.
        configurations: such as "2d" and "3d_fullres".
        plans: the name of the plans.
        folder: in the raw dataset, with a file of ids for each file of labelsTr, of its name and shape.

    Returns:
        The number of segmentations that have got ids.

    Raises:
        FileNotFoundError: a file of ids is not there.
        ValueError: ids do not fit the image, or are above 32767.
    """
    name = maybe_convert_to_dataset_name(dataset)
    raw, preprocessed = Path(nnUNet_raw, name), Path(nnUNet_preprocessed, name)
    description = load_json(raw / "dataset.json")
    manager = PlansManager(str(preprocessed / f"{plans}.json"))
    cases = get_filenames_of_train_images_and_targets(str(raw), description)
    files = {case: raw / folder / (case + description["file_ending"]) for case in cases}
    absent = [str(file) for file in files.values() if not file.is_file()]
    if absent:
        raise FileNotFoundError(f"there are no instance ids in {', '.join(absent)}")
    for configuration in configurations:
        found = manager.get_configuration(configuration)
        of_configuration = preprocessed / found.data_identifier
        for case, file in files.items():
            images = cases[case]["images"]
            ids = _preprocessed(images, file, manager, found, description)
            _store(case, ids, of_configuration, found.patch_size)
    return len(files) * len(configurations)


def _preprocessed(
    images: list[str],
    file: Path,
    manager: PlansManager,
    configuration: ConfigurationManager,
    description: dict,
) -> np.ndarray:
    reader = manager.image_reader_writer_class()
    data, properties = reader.read_images(images)
    ids, _ = reader.read_seg(str(file))
    if ids.shape != (1, *data.shape[1:]):
        raise ValueError(
            f"{file} must have the shape {data.shape[1:]} of its image, in one channel, got {ids.shape}"
        )
    if ids.max() > HIGHEST:
        raise ValueError(
            f"{file} has the instance id {ids.max():.0f}: nnU-Net keeps int16, number them from 1 to "
            f"{HIGHEST} at most"
        )
    preprocessor = configuration.preprocessor_class(verbose=False)
    return preprocessor.run_case_npy(data, ids, properties, manager, configuration, description)[1]


def _store(case: str, ids: np.ndarray, folder: Path, patch_size: Sequence[int]) -> None:
    dataset_class = infer_dataset_class(str(folder))
    segmentation = np.asarray(dataset_class(str(folder), [case]).load_case(case)[1][:1])
    if ids.shape != segmentation.shape:
        raise ValueError(
            f"the ids of {case} have the shape {ids.shape} and its labels {segmentation.shape}: "
            "preprocess again"
        )
    both = np.concatenate([segmentation, ids.astype(np.int16)], dtype=np.int16)
    blocks, chunks = comp_blosc2_params(both.shape, tuple(patch_size), both.itemsize)
    with tempfile.TemporaryDirectory(dir=folder) as beside:  # replaced as a whole
        dataset_class.save_seg(both, os.path.join(beside, "ids"), chunks_seg=chunks, blocks_seg=blocks)
        (made,) = Path(beside).iterdir()
        os.replace(made, folder / f"{case}_seg{made.suffix}")
