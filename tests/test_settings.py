"""Settings are written down once: everything that repeats them for a reader is held against the dataclass."""

import dataclasses
import functools
import inspect
import os
import pickle
import subprocess
import sys
import typing

import numpy as np
import pytest
import torch
import typed_use

import fastlogconv
from fastlogconv import WeightSettings, calculate_weights, integrations, ops, rules
from fastlogconv.__main__ import build_parser
from fastlogconv.backends import c_interface, reference
from fastlogconv.settings import (
    BY_PRESET,
    DEFAULT_PRESET,
    DEFAULTS,
    NAMES,
    OF_LABELS,
    PRESETS,
    RENAMED,
    RULES,
    SETTINGS,
    PresetName,
)

CHANGES = dict(
    distance="euclidean", border="farthest", falloff="none", balance="frequency", border_everywhere=True,
    gaps=True, bws=3.5, fds=7.25, bwf=0.0, fbr=2.0, lmbda=1.5, ks=None,
    spacing=(2.0, 0.5),
)  # fmt: skip  # one of each, none a default
OF_REGIONS = {name: value for name, value in CHANGES.items() if name not in OF_LABELS}
NEEDS = dict(
    balance=dict(falloff="none"),
    border_everywhere=dict(distance="euclidean"),
    spacing=dict(distance="euclidean"),
)


def changed(name):
    """One setting changed, and what it needs."""
    return {**NEEDS.get(name, {}), name: CHANGES[name]}


def test_a_change_of_each_is_tried_here():
    assert set(CHANGES) == set(NAMES)
    assert not [name for name in NAMES if CHANGES[name] == DEFAULTS[name]]


# ------------------------------------------------------------------------------------------- the object


def test_equal_settings_are_one_key():
    assert WeightSettings(bws=3) == WeightSettings(bws=3.0)
    assert len({WeightSettings(bws=3), WeightSettings(bws=3.0), WeightSettings()}) == 2
    for name in CHANGES:
        settings = WeightSettings(**NEEDS.get(name, {}))
        assert settings.replace(**{name: CHANGES[name]}) != settings


def test_values_are_plain():
    settings = WeightSettings(bws=torch.tensor(3).item(), ks=True + 6)
    flags = [bool, bool]
    assert [type(value) for value in settings.values] == [str] * 4 + flags + [float] * 5 + [int, type(None)]
    for spacing in ([2, 1], np.array([2, 1]), (2.0, True + 0)):
        assert WeightSettings(distance="euclidean", spacing=spacing).spacing == (2.0, 1.0)
    assert settings.as_dict() == dict(zip(NAMES, settings.values, strict=True))
    assert settings.as_dict() == dataclasses.asdict(settings)


def test_nothing_can_be_changed():
    for name in NAMES:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(WeightSettings(), name, CHANGES[name])


@pytest.mark.parametrize("ks, radius", [(1, 0), (2, 1), (3, 1), (72, 36), (73, 36), (None, 2**30 - 1)])
def test_radius(ks, radius):
    assert WeightSettings(ks=ks).radius == radius


def test_replace_checks_and_leaves_the_original():
    settings = WeightSettings()
    assert settings.replace(**CHANGES).as_dict() == CHANGES
    assert settings.as_dict() == DEFAULTS
    with pytest.raises(ValueError, match="bws must be a finite number > 0"):
        settings.replace(bws=0)
    with pytest.raises(TypeError):
        settings.replace(no_setting=1)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset):
    assert WeightSettings.preset(preset).as_dict() == {**DEFAULTS, **PRESETS[preset]}
    assert WeightSettings.preset(preset, **CHANGES).as_dict() == CHANGES


def test_what_is_no_setting_is_told_with_where_it_belongs():
    for make in (functools.partial(WeightSettings.preset, "unet2019"), WeightSettings().replace):
        with pytest.raises(
            TypeError, match=r"spatial_dims is no setting.*weight_map\(labels, settings=settings, "
        ):
            make(spatial_dims=3)
        with pytest.raises(
            TypeError, match=r"^sigma is no setting: there are distance, border, .*, spacing$"
        ):
            make(sigma=3)


def test_the_defaults_are_a_preset():
    assert WeightSettings.preset(DEFAULT_PRESET) == WeightSettings()
    with pytest.raises(ValueError, match=f"preset must be one of .*{DEFAULT_PRESET}.*got 'no preset at all'"):
        WeightSettings.preset("no preset at all")


def test_repr_shows_what_differs_and_gives_it_back():
    assert repr(WeightSettings()) == "WeightSettings.preset('deepflash2_logconv')"
    assert repr(WeightSettings(bws=3)) == "WeightSettings.preset('deepflash2_logconv', bws=3.0)"
    for preset in PRESETS:
        for name in CHANGES:
            settings = WeightSettings.preset(preset, **{"balance": "none", **changed(name)})
            assert eval(repr(settings)) == settings


def test_pickled_for_another_process():
    """Where hashes of strings are others."""
    code = (
        "import pickle, sys, fastlogconv\n"
        "settings = pickle.loads(sys.stdin.buffer.read())\n"
        "fresh = fastlogconv.WeightSettings(**settings.as_dict())\n"
        "assert settings == fresh and hash(settings) == hash(fresh)\n"
    )
    pickled = pickle.dumps(WeightSettings(**CHANGES))
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickled, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        assert done.returncode == 0


def test_functions_take_the_object():
    labels = torch.zeros(12, 16, dtype=torch.int32)
    labels[3:6, 4:7], labels[8:10, 9:14] = 1, 2
    masks = torch.stack([labels == 1, labels == 2])
    of_regions = WeightSettings(**OF_REGIONS)
    for function, tensor, settings, changes in (
        (fastlogconv.weight_map, labels, WeightSettings(**CHANGES), CHANGES),
        (fastlogconv.region_weight_map, masks, of_regions, OF_REGIONS),
    ):
        assert torch.equal(function(tensor, settings=settings), function(tensor, **changes))
        with pytest.raises(
            TypeError, match=r"not both, got settings and bws, ks: pass settings.replace\(bws="
        ):
            function(tensor, settings=settings, bws=4, ks=9)
        for several in (np.array([4.0, 5.0]), torch.tensor([4.0, 5.0])):
            with pytest.raises(TypeError, match="not both, got settings and bws: pass"):
                function(tensor, settings=settings, bws=several)
        with pytest.raises(TypeError, match="settings must be WeightSettings or None, got dict"):
            function(tensor, settings=CHANGES)


# ------------------------------------------------------------------------------- what repeats it for readers


def parameters_of(function):
    return {name: p for name, p in inspect.signature(function).parameters.items() if name in SETTINGS}


@pytest.mark.parametrize("function", [fastlogconv.weight_map, fastlogconv.region_weight_map])
def test_signatures_of_functions(function):
    parameters = parameters_of(function)
    of_labels = () if function is fastlogconv.weight_map else OF_LABELS
    assert tuple(parameters) == tuple(name for name in NAMES if name not in of_labels)
    for name, parameter in parameters.items():
        assert parameter.default == (None if name in BY_PRESET else DEFAULTS[name])
        own = SETTINGS[name].type
        assert parameter.annotation == (f"{own} | None" if name in BY_PRESET else own)
    tensor = torch.zeros(2, 5, 6, dtype=torch.int32)
    tensor[0, :2], tensor[1, 4:] = 1, 1
    assert torch.equal(function(tensor), function(tensor, **{name: DEFAULTS[name] for name in parameters}))
    by_preset = [name for name in BY_PRESET if name in parameters]
    assert torch.equal(function(tensor), function(tensor, **dict.fromkeys(by_preset)))


@pytest.mark.parametrize("function", [fastlogconv.weight_map, fastlogconv.region_weight_map])
def test_functions_take_a_preset(function):
    tensor = torch.zeros(2, 12, 16, dtype=torch.int32)
    tensor[0, 3:6, 4:7], tensor[1, 8:10, 9:14] = 1, 1
    parameters = parameters_of(function)
    for preset in PRESETS:
        if function is fastlogconv.region_weight_map and preset.startswith("unet"):
            with pytest.raises(
                ValueError, match=r"region masks have falloff='sum' alone, got '(nearest|none)'"
            ):
                function(tensor, preset=preset)
            continue
        assert torch.equal(
            function(tensor, preset=preset), function(tensor, settings=WeightSettings.preset(preset))
        )
        for name in parameters:  # what is given wins, a default, too
            for value in (CHANGES[name], DEFAULTS[name]):
                given = {name: value}
                if preset == "unet2015" or value == "frequency":
                    given = {"balance": "none", **NEEDS.get(name, {}), **given}
                elif name in ("border_everywhere", "spacing") and value:
                    given = changed(name)
                settings = WeightSettings.preset(preset, **given)
                assert torch.equal(
                    function(tensor, preset=preset, **given), function(tensor, settings=settings)
                )
        with pytest.raises(TypeError, match=f"settings or a preset, not both, got .* and preset='{preset}'"):
            function(tensor, settings=WeightSettings(), preset=preset)
    for wrong in ("unet2018", 3, np.array(["deepflash2", "deepflash2"])):
        with pytest.raises(ValueError, match=r"preset must be one of 'unet2019', .*got"):
            function(tensor, preset=wrong)
    for old, new in RENAMED.items():
        with pytest.raises(ValueError, match=f"preset '{old}' is now '{new}'; .* 'unet2019' and 'unet2015'"):
            function(tensor, preset=old)


def test_what_goes_together():
    with pytest.raises(ValueError, match=r"balance='frequency' goes with falloff='none', .* got 'sum'"):
        WeightSettings(balance="frequency")
    with pytest.raises(ValueError, match=r"border_everywhere=True needs exact distances: .* got 'logconv'"):
        WeightSettings(border_everywhere=True)
    with pytest.raises(TypeError, match="gaps must be True or False, got 1 of type int"):
        WeightSettings(gaps=1)
    assert WeightSettings(gaps=np.bool_(True)).gaps is True


def test_every_preset_names_what_presets_choose():
    assert {tuple(settings) for settings in PRESETS.values()} == {BY_PRESET}


def test_unet_weights():
    labels = torch.zeros(12, 16, dtype=torch.int32)
    labels[3:6, 4:7], labels[8:10, 9:14], labels[0] = 1, 2, 255
    unet = fastlogconv.UNetWeights(bwf=5, ignore_index=[255, -1])
    assert isinstance(unet, fastlogconv.WeightTransform)
    assert unet.settings == WeightSettings.preset("unet2019", bwf=5)
    assert fastlogconv.UNetWeights().settings == WeightSettings.preset("unet2019")
    assert torch.equal(
        unet(labels), fastlogconv.weight_map(labels, preset="unet2019", bwf=5, ignore_index=255)
    )
    parameters = parameters_of(fastlogconv.UNetWeights)
    preset = WeightSettings.preset("unet2019")
    for name, parameter in parameters.items():
        assert parameter.default == getattr(preset, name) and parameter.annotation == SETTINGS[name].type
    assert set(NAMES) - set(parameters) == {
        "distance",
        "border",
        "falloff",
        "balance",
        "lmbda",
        "ks",
    }  # the preset's, or of no effect


@pytest.mark.parametrize("transform", [fastlogconv.WeightTransform, fastlogconv.WeightTransformSingle])
def test_signatures_of_transforms(transform):
    parameters = parameters_of(transform)
    assert set(parameters) == set(NAMES)
    for name, parameter in parameters.items():
        assert parameter.default == (None if name in BY_PRESET else DEFAULTS[name])
        own = SETTINGS[name].type
        assert parameter.annotation == (f"{own} | None" if name in BY_PRESET else own)
        if transform is fastlogconv.WeightTransformSingle and name in OF_LABELS:
            with pytest.raises(ValueError, match=f"region masks have {OF_LABELS[0]}|{name}="):
                transform(**changed(name))
            with pytest.raises(ValueError, match="region masks have"):
                transform(distance="euclidean").falloff = "none"
            continue
        other = transform(**changed(name))
        assert getattr(other, name) == getattr(other.settings, name) == CHANGES[name]


def test_signatures_of_the_rest():
    for function in (fastlogconv.distance_to_weight, calculate_weights):
        parameters = inspect.signature(function).parameters.items()
        given = {name: p.default for name, p in parameters if p.default is not inspect.Parameter.empty}
        assert all(given[name] == DEFAULTS[name] for name in ("bws", "fds", "bwf", "fbr"))


def test_docstring_names_each():
    documented = inspect.getdoc(WeightSettings)
    assert [name for name in NAMES if f"\n    {name}: " not in documented] == []
    for name, table in RULES.items():
        for function in (WeightSettings, fastlogconv.weight_map):
            assert all(f'"{rule}"' in inspect.getdoc(function) for rule in table), name


def test_literals_are_the_tables():
    assert set(typing.get_args(rules.DistanceName)) == set(rules.DISTANCES)
    assert set(typing.get_args(rules.BorderName)) == set(rules.BORDERS)
    assert set(typing.get_args(rules.FalloffName)) == set(rules.FALLOFFS)
    assert set(typing.get_args(rules.BalanceName)) == set(rules.BALANCES)
    assert typing.get_args(PresetName) == tuple(PRESETS)


def test_schema_of_the_operators():
    for operator in (ops.weight_map, ops.region_weight_map, ops.distance_to_weight):
        names = [argument.name for argument in operator._schema.arguments]
        assert tuple(names[-1 - len(NAMES) : -1]) == NAMES and names[-1] == "backend"


def test_options_of_the_command_line():
    values = {name: "none" if value is None else str(value) for name, value in CHANGES.items()}
    options = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if CHANGES[name] is True:
            options.append(option)
        else:
            options += [option, *map(str, CHANGES[name])] if name == "spacing" else [option, value]
    parsed = build_parser().parse_args(["weights", "labels.tif", "--out", "out", *options])
    assert {name: getattr(parsed, name) for name in NAMES} == {**CHANGES, "spacing": [2.0, 0.5]}


def test_keywords_of_the_integrations():
    assert integrations.weight_transform({}).settings == WeightSettings()
    assert integrations.weight_transform(CHANGES).settings == WeightSettings(**CHANGES)


def test_typed_use():
    """What the type checker passes does run."""
    typed_use.use_everything()


def test_the_reference_knows_every_rule():
    assert set(reference._DISTANCES) == set(rules.DISTANCES)
    assert set(reference._BORDER_RULES) == set(rules.BORDERS)


def test_parameters_of_the_c_interface():
    settings = WeightSettings(**CHANGES)
    params = c_interface.params_for(settings, 40, 50, "cpu", False)
    assert (params.distance, params.border) == (
        rules.DISTANCES[settings.distance].code,
        rules.BORDERS[settings.border].code,
    )
    assert [params.bws, params.fds, params.bwf, params.fbr] == [3.5, 7.25, 0.0, 2.0]
    assert params is c_interface.params_for(WeightSettings(**CHANGES), 40, 50, "cpu", False)
