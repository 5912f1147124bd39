"""Nothing is imported unless it is asked for, and what is missing is named."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

from fastlogconv import integrations

MODULES = [module.name for module in pkgutil.iter_modules(integrations.__path__)]
PACKAGES = ["nnunetv2" if name == "nnunet" else name for name in MODULES]


def test_there_is_one_for_each_library():
    libraries = {"albumentations", "batchgeneratorsv2", "fastai", "fasttransform", "monai", "torchvision"}
    assert set(MODULES) == libraries | {"nnunet"}


def test_fastlogconv_imports_no_other_library():
    program = f"""
import sys, fastlogconv, fastlogconv.integrations
print([name for name in {PACKAGES} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("module", "library"), list(zip(MODULES, PACKAGES, strict=True)), ids=MODULES)
def test_what_is_missing_is_named(module, library, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"fastlogconv.integrations.{module}", raising=False)
    with pytest.raises(ImportError, match=rf'needs {library}: pip install "fastlogconv\[{module}\]"'):
        importlib.import_module(f"fastlogconv.integrations.{module}")
