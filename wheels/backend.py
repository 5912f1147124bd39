"""The build backend of pyproject.toml: setuptools', and a compiler to be installed where there is none."""

from __future__ import annotations

import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from . import compilers


def _with_compiler(requirements: list[str]) -> list[str]:
    if not compilers.requires_zig():
        return requirements
    print("fastlogconv: no C++ compiler on the PATH, so ziglang is installed for the build", file=sys.stderr)
    return [*requirements, "ziglang>=0.17"]


def _quiet(config_settings: dict | None) -> dict:
    """Without a hundred lines of copied files: where a build fails, pip shows all that was said."""
    return {"quiet": "1", **(config_settings or {})}


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return build_meta.build_wheel(wheel_directory, _quiet(config_settings), metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return build_meta.build_editable(wheel_directory, _quiet(config_settings), metadata_directory)


def get_requires_for_build_wheel(config_settings=None):
    return _with_compiler(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings=None):
    return _with_compiler(build_meta.get_requires_for_build_editable(config_settings))
