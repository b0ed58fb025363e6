"""The configuration of ``offsim train``: a YAML, a budget, options, overrides; checked before any work."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from app.errors import UserError
from app.policy_methods import policy_method, shipped_method
from app.settings import refuse_misfits, refuse_other_types
from datamodules.errors import DataError
from lit_modules.behaviour_cloning import ROWS, BehaviourCloning
from lit_modules.dynamics_reward import DynamicsRewardGame
from lit_modules.hold import FAILING, KNOWN
from lit_modules.offsim import OffSim
from lit_modules.replay_learner import ReplayLearner
from lit_modules.rows_per_update import (
    refuse_too_few_for_game,
    refuse_too_few_for_members,
    refuse_too_few_for_policy,
)
from lit_modules.weighted_cloning import WeightedCloning
from zoo.tasks import TASKS, is_known

DEFAULTS = "defaults"
FULL = "full"
LARGEST_SEED = 2**32 - 1  # NumPy's
METHODS = "methods"  # folder of the settings of learners that differ from those in the defaults
STAGES = ("behaviour_cloning", "simulator", "weighted_cloning", "dynamics_reward", "policy")
OPTIONAL = ("weighted_cloning", "dynamics_reward")  # of these, what a run may leave out
# Settings that came after runs had been published, at the value that changes nothing: such runs lack them, that is all
LATER = {"matmul_precision": "highest"}
LATER_OF_DATA = {"exogenous": None}
LATER_OF_MODELS: dict[str, dict[str, Any]] = {
    "simulator": {"forecast_updates": 0},
    "policy": {
        "value_unit": None,
        "aggregation": None,
        "loosen_below": None,
        "let_go": FAILING,
        "dynamics_threshold": 0.0,
        "dynamics_temperature": 0.1,
    },
}
FORECASTS = ("forecast_steps", "forecast_weight", "forecast_learning_rate")  # likewise, where nothing is forecast
ANCHOR = ("anchor_form", "anchor_tolerance")  # likewise, where nothing is anchored
HOLDING = ("loosen_below", "let_go")  # of these, what every learner has, and would do otherwise today
LOOSENING = ("let_go", "let_go_updates", "loosened_hold", "judged_episodes")  # likewise, where no hold is loosened


def comparable(settings: dict[Any, Any]) -> dict[Any, Any]:
    """Settings as a run of before would have had them, to tell whether two runs are the same."""
    kept = _without(settings, LATER)
    if isinstance(data := kept.get("data"), Mapping):
        kept["data"] = _without({**data, **_as_written(data)}, LATER_OF_DATA)
    for stage, later in LATER_OF_MODELS.items():
        if (kept.get(stage) or {}).get("model"):
            model = _without(_as_trained(kept[stage]), later)
            unsaid: tuple[str, ...] = () if "forecast_updates" in model else FORECASTS
            unsaid += () if "loosen_below" in model else LOOSENING
            unsaid += () if "let_go" in model else ("let_go_updates",)
            unsaid += ANCHOR if model.get("anchor_weight") == 0.0 else ()
            kept[stage] = {**kept[stage], "model": {name: model[name] for name in model if name not in unsaid}}
    return kept


def _as_trained(stage: Mapping[Any, Any]) -> dict[Any, Any]:
    """Settings of a stage's model, where training that is too short to let go of a cloned policy says so."""
    model = dict(stage["model"])
    if model.get("let_go") == KNOWN and stage.get("updates", math.inf) < model.get("let_go_updates", 0):
        model["let_go"] = FAILING
    return model


def flat(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """``{a: {b: 1}} -> {a.b: 1}``; an empty group stays one."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inside = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found


def _as_written(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Ids of datasets as the shipped experiments write them: one expert without a list, diverse data in one."""
    expert, diverse = data.get("expert"), data.get("diverse")
    return ({"expert": expert[0]} if isinstance(expert, list) and len(expert) == 1 else {}) | (
        {"diverse": [diverse]} if isinstance(diverse, str) else {}
    )


def _without(settings: dict[Any, Any], unchanging: dict[str, Any]) -> dict[Any, Any]:
    return {name: value for name, value in settings.items() if name not in unchanging or value != unchanging[name]}


def shipped_tasks() -> list[str]:
    """Names of the tasks that a configuration comes with the package for."""
    return [name for name in _shipped("train") if name != DEFAULTS]


def shipped_methods() -> list[str]:
    """Names of the configurations that change the method on any task."""
    return [f"methods/{name}" for name in _shipped("train", "methods")]


def _shipped(*folder: str) -> list[str]:
    entries = resources.files("configs").joinpath(*folder).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def load_configuration(source: str, method: str | None = None, above: tuple[Path, ...] = ()) -> DictConfig:
    """Read a YAML file, or a shipped configuration; what it does not say comes from its ``base``.

    The shipped defaults hold the settings of one learner. Where another is chosen, those of ``methods/NAME.yaml``
    take their place, below everything that the files say.

    Args:
        source: path of a file, or name of a shipped one: a task, or a method as in ``methods/offline_ml_irl``.
        method: ``policy.method`` if it was chosen elsewhere; ``None`` leaves it to the files.
        above: files that are based on this one.

    Raises:
        UserError: if there is no such file or task, if it cannot be read, or names a setting that its base lacks.
    """
    path = find_configuration(source)
    if path is None:
        names = {name.lower().replace("_", ""): name for name in [*shipped_tasks(), *shipped_methods()]}
        close = difflib.get_close_matches(source.lower().replace("_", ""), names, n=1)
        hint = f"did you mean {names[close[0]]!r}?" if close else f"known are {', '.join(names.values())}"
        raise UserError(f"{source!r} is neither a file nor a task or method: {hint}")
    configuration = read_yaml(path)
    method = method or OmegaConf.select(configuration, "policy.method")
    base = configuration.pop("base", None)
    if base is None:
        if "stages" not in configuration:
            raise UserError(
                f"{path} says neither `base: {DEFAULTS}` (`base: own` for a system of your own), nor which stages to "
                "train: write the first, and below it what differs from the defaults"
            )
        return _with_method(configuration, method) if path == find_configuration(DEFAULTS) else as_then(configuration)
    below = find_configuration(str(base), path.parent)
    if below is None:
        raise UserError(
            f"{path}: its base {str(base)!r} is no file beside it; write `base: {DEFAULTS}` or a file's name"
        )
    if below.resolve() in above:
        raise UserError(f"{path}: its base {base} is in turn based on this file")
    return overlay(load_configuration(str(below), method, (*above, path.resolve())), configuration)


def as_then(configuration: DictConfig) -> DictConfig:
    """A whole configuration, as a run leaves it, that says how a cloned policy was held before it could say so.

    Stages that it does not know and leaves out are as in the defaults.

    Args:
        configuration: of a run; what it lacks is set in place.
    """
    model = OmegaConf.select(configuration, "policy.model")
    if model:
        for name in HOLDING:
            model.setdefault(name, LATER_OF_MODELS["policy"][name])
    for name in OPTIONAL:
        if name not in configuration:
            configuration[name] = read_yaml(_defaults())[name]
    return configuration


def _defaults() -> Path:
    """The file of the shipped defaults."""
    file = find_configuration(DEFAULTS)
    assert file is not None
    return file


def find_configuration(name: str, folder: Path = Path()) -> Path | None:
    """The file of that name in a folder, or else the configuration of that name that comes with the package."""
    shipped = Path(str(resources.files("configs") / "train" / f"{name}.yaml"))
    return next((path for path in (folder / name, shipped) if path.is_file()), None)


def overlay(known: DictConfig, differences: DictConfig) -> DictConfig:
    """A configuration with some settings changed.

    Raises:
        UserError: if one of them is unknown, or is a single value in place of a group of settings.
    """
    for key in _keys(differences):
        if not key.startswith("budgets."):  # a file may add budgets of its own
            refuse_unknown(key, known)
        group, given = OmegaConf.select(known, key), OmegaConf.select(differences, key)
        if OmegaConf.is_dict(group) and not OmegaConf.is_dict(given) and ".model." not in key:
            raise UserError(f"{key} is a group of settings, such as {key}.{next(iter(group))}: name those to change")
    return cast(DictConfig, OmegaConf.merge(known, differences))


def _with_method(defaults: DictConfig, method: str | None) -> DictConfig:
    """The defaults with the settings of a learner in the place of those that they have."""
    file = find_configuration(f"{METHODS}/{None if method is None else shipped_method(method)}")
    if file is None:
        return defaults
    settings = read_yaml(file)
    settings.pop("base", None)
    defaults.policy.model = {}
    return cast(DictConfig, OmegaConf.merge(defaults, settings))


def chosen_method(overrides: list[str]) -> str | None:
    """``policy.method`` if the command line says it, for :func:`load_configuration`."""
    values = [each.partition("=")[2] for each in parse_overrides(overrides) if each.startswith("policy.method=")]
    return values[-1] if values else None


def read_yaml(path: Path) -> DictConfig:
    """A YAML file as it stands.

    Raises:
        UserError: if it cannot be read or holds no mapping.
    """
    try:
        configuration = OmegaConf.load(path)
    except Exception as error:  # any YAML error
        raise UserError(f"{path} is not a readable YAML file: {error}") from error
    if not isinstance(configuration, DictConfig):
        raise UserError(f"{path} must hold a mapping, with `base: {DEFAULTS}` or every key")
    return configuration


def parse_overrides(words: list[str]) -> list[str]:
    """``--a.b 1`` and ``--a.b=1`` and ``a.b=1`` as OmegaConf's ``a.b=1``."""
    overrides = []
    waiting: str | None = None
    for word in words:
        if waiting is not None:
            overrides.append(f"{waiting}={word}")
            waiting = None
        elif "=" in word:
            overrides.append(word.removeprefix("--"))
        elif word.startswith("--"):
            waiting = word.removeprefix("--")
        else:
            raise UserError(f"cannot read {word!r}: write overrides as --policy.updates 20000")
    if waiting is not None:
        raise UserError(f"--{waiting} needs a value")
    return overrides


def with_budget(configuration: DictConfig, budget: str) -> DictConfig:
    """A configuration with what one of its budgets replaces, and without its budgets.

    Raises:
        UserError: if it has no budget of that name.
    """
    # The configuration that a run leaves in its folder has its budget applied and names none
    budgets = configuration.get("budgets", {FULL: {}})
    if budget not in budgets:
        raise UserError(f"unknown budget {budget!r}: this configuration has {', '.join(budgets)}")
    replaced = cast(DictConfig, OmegaConf.merge(configuration, budgets[budget]))
    replaced.pop("budgets", None)
    return replaced


def resolve(configuration: DictConfig, budget: str, options: dict[str, Any], overrides: list[str]) -> DictConfig:
    """Apply budget, command-line options and overrides in this order, and refuse keys that do not exist."""
    known = configuration.copy()
    known.pop("budgets", None)
    merged = with_budget(configuration, budget)
    for key, value in options.items():
        if value is not None:
            OmegaConf.update(merged, key, value)
    for override in parse_overrides(overrides):
        key, _, value = override.partition("=")
        refuse_unknown(key, known)
        try:
            merged = cast(DictConfig, OmegaConf.merge(merged, OmegaConf.from_dotlist([f"{key}={value}"])))
        # A TypeError: a list where a group of settings belongs
        except (OmegaConfBaseException, TypeError, YAMLError) as error:
            raise UserError(f"cannot set {key} to {value!r}: {error}") from error
    try:
        missing = sorted(OmegaConf.missing_keys(merged))
        settings: Any = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be read: {str(error).splitlines()[0]}") from error
    if missing:
        raise UserError(f"the configuration does not say {', '.join(missing)}: add it to the file or as --{missing[0]}")
    _check_stages(merged)
    refuse_other_types(settings)
    refuse_seed(merged.seed)
    if not merged.data.diverse:  # of which weighted cloning is
        merged.stages = [name for name in merged.stages if name != "weighted_cloning"]
    if merged.behaviour_cloning.rows not in ROWS:
        raise UserError(f"behaviour_cloning.rows is {merged.behaviour_cloning.rows!r}: choose one of {', '.join(ROWS)}")
    methods: tuple[type, ...] = (
        BehaviourCloning,
        OffSim,
        WeightedCloning,
        DynamicsRewardGame,
        policy_method(merged.policy.method),
    )
    for stage, method in zip(STAGES, methods, strict=True):
        _refuse_unknown_arguments(f"{stage}.model", merged[stage].model, method)
        refuse_misfits(f"{stage}.model.", settings[stage]["model"], method)
    _refuse_other_rows(merged)
    _refuse_without_task(merged)
    return merged


def refuse_seed(seed: int) -> None:
    """Refuse a seed that random numbers cannot be drawn from."""
    if seed > LARGEST_SEED:
        raise UserError(f"seed is {seed}: it must be at most {LARGEST_SEED}")


def _refuse_other_rows(configuration: DictConfig) -> None:
    """Refuse rows of data that the policy's method does not read, and the lack of those that it does."""
    name = configuration.policy.method
    method = policy_method(name)
    for stream in ("expert", "all"):
        rows = configuration.policy[f"{stream}_rows"]
        if stream in method.streams and rows < 1:
            raise UserError(f"{name} learns from {stream} rows as well: set policy.{stream}_rows to at least 1")
        if stream not in method.streams and rows != 0:
            raise UserError(f"{name} reads no {stream} rows: set policy.{stream}_rows to 0")
    _refuse_too_few("simulator", configuration, OffSim, refuse_too_few_for_members)
    if configuration.simulator.updates > (configuration.simulator.model.get("pretraining_updates") or 0):
        _refuse_too_few("simulator", configuration, OffSim, refuse_too_few_for_game)
    if issubclass(method, ReplayLearner):
        _refuse_too_few("policy", configuration, ReplayLearner, refuse_too_few_for_policy)


def _refuse_too_few(stage: str, configuration: DictConfig, method: type, refuse: Callable[..., None]) -> None:
    """Have that refuse the rows per update of a stage, by the method's arguments that it takes, or their defaults."""
    rows = {name: configuration[stage][name] for name in ("expert_rows", "all_rows")}
    defaults = inspect.signature(method).parameters
    given = {
        name: rows[name] if name in rows else configuration[stage].model.get(name, defaults[name].default)
        for name in inspect.signature(refuse).parameters
    }
    if not all(isinstance(value, int | float) for value in given.values()):
        return  # refused where the model's arguments are
    try:
        refuse(**given)
    except DataError as error:
        raise UserError(
            f"{stage}.expert_rows is {rows['expert_rows']}, all_rows {rows['all_rows']}: {error}"
        ) from error


def _refuse_without_task(configuration: DictConfig) -> None:
    """Refuse what only a known task has, where there is none; and tasks that do not exist."""
    if configuration.task is not None:
        if not is_known(configuration.task):
            raise UserError(
                f"unknown task {configuration.task!r}: known are {', '.join(sorted(TASKS))}; null stands for a system "
                "of your own"
            )
        return
    if configuration.simulator.model.get("termination") == "rule":
        raise UserError("simulator.model.termination: a rule needs a known task; set it to learned or none")
    if configuration.evaluation.reward_histograms:
        raise UserError("evaluation.reward_histograms needs a known task, for its random transitions: set it to false")


def _check_stages(configuration: DictConfig) -> None:
    stages: Any = configuration.stages
    listed = list(stages) if isinstance(stages, ListConfig) else [stages]
    unknown = [name for name in listed if name not in STAGES]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), STAGES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known stages are {', '.join(STAGES)}"
        raise UserError(f"unknown stage {unknown[0]!r} in stages: {hint}")
    ordered = [name for name in STAGES if name in listed or name not in OPTIONAL]
    if not listed or listed != ordered[: len(listed)] or not isinstance(stages, ListConfig):
        raise UserError(
            f"stages is {listed}: each stage builds on those before it, so list them from the first on: "
            f"[{', '.join(name for name in STAGES if name not in OPTIONAL)}], or stop earlier; "
            f"{' and '.join(OPTIONAL)} come before policy"
        )


def refuse_unknown(key: str, known: DictConfig) -> None:
    """Raise a ``UserError`` unless ``key``, as in ``policy.updates``, is one of the settings known."""
    stage, _, rest = key.partition(".")
    if stage in STAGES and rest.startswith("model."):
        return  # checked against the method's own arguments
    keys = _keys(known)
    if key not in keys:
        close = difflib.get_close_matches(key, keys, n=1, cutoff=0.4)
        raise UserError(f"unknown setting {key!r}" + (f": did you mean {close[0]!r}?" if close else ""))


def _keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name in map(str, node):
        keys.append(f"{prefix}{name}")
        if not OmegaConf.is_missing(node, name) and OmegaConf.is_dict(node.get(name)):
            keys += _keys(node[name], f"{prefix}{name}.")
    return keys


def _refuse_unknown_arguments(prefix: str, given: DictConfig, method: type) -> None:
    allowed = arguments_of(method)
    for name in map(str, given):
        if name not in allowed:
            raise UserError(unknown_argument(prefix, name, method))


def unknown_argument(prefix: str, name: str, method: type) -> str:
    """Says that ``prefix.name`` is no setting of a method, and which is the nearest that is one."""
    close = difflib.get_close_matches(name, arguments_of(method), n=1, cutoff=0.4)
    return f"unknown setting {prefix}.{name} of {method.__name__}" + (
        f": did you mean {prefix}.{close[0]}?" if close else ""
    )


def arguments_of(method: type) -> list[str]:
    """Names of a constructor's arguments, with those that it passes on to its parent."""
    parameters = inspect.signature(method).parameters.values()
    names = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    return names if len(names) == len(parameters) else names + arguments_of(method.__mro__[1])
