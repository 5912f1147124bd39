"""What belongs to one of the package's extras, or to the tests alone: what needs it is skipped without it."""

EXTRAS = (
    "IPython", "PIL", "albumentations", "batchgeneratorsv2", "dask", "distributed", "fastai", "fasttransform",
    "h5py", "hypothesis", "imagecodecs", "lightning", "matplotlib", "monai", "nnunetv2", "scipy",
    "segmentation_models_pytorch", "setuptools", "skimage", "tifffile", "torchvision", "tqdm", "zarr",
)  # fmt: skip


def missing_extra(error):
    """Why a test that failed is skipped: an extra that was not found; None where that is not the reason."""
    while error is not None:
        package = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package in EXTRAS:
            return f"needs {package}, which is not installed"
        error = error.__cause__
    return None
