"""The page that varies one thing: returns, errors of the transition model before and after the game, rewards."""

from __future__ import annotations

from itertools import product

import numpy as np
from matplotlib.figure import Figure

from app.results import figures, simulators
from app.results.aggregate import matching, mean, values
from app.results.evidence import Evidence
from app.results.headline import returns
from app.results.rows import DATA, Row
from app.results.tables import format_number, table

ERRORS = {"one_step": "one-step error", "open_loop": "open-loop error"}


def sections(evidence: Evidence) -> list[str]:
    """The tables of returns, of held-out errors before and after the game, and of the finished simulators."""
    return [returns(evidence), _errors(evidence), *simulators.sections(evidence)]


def drawn(evidence: Evidence) -> dict[str, Figure]:
    """Returns and errors by variant, and histograms of rewards where runs have kept them."""
    labelled = _labelled(evidence)
    tasks = evidence.experiment.tasks

    def panel(task: str, name: str) -> figures.Panel:
        return {label: values(matching(evidence.rows, task, *chosen), name) for label, chosen in labelled.items()}

    shares = {"": {task: panel(task, "share_of_expert") for task in tasks}}
    errors = {
        title: {
            task: {data: (panel(task, f"{name}_{data}_before_game"), panel(task, f"{name}_{data}")) for data in DATA}
            for task in tasks
        }
        for name, title in ERRORS.items()
    }
    found = {"": figures.share_bars(shares), "-errors": figures.errors_before_and_after(errors)}
    kept = {(task, label): evidence.reward_histograms(task, *labelled[label]) for task in tasks for label in labelled}
    if any(kept.values()):
        shown = [label for label in labelled if any(kept[task, label] for task in tasks)]
        rewards = {
            f"{task}\n{when} training": {
                label: {
                    kind: np.array(finite)
                    for kind, numbers in ((kept[task, label] or {}).get(when, {})).items()
                    if (finite := [number for number in numbers if number is not None])
                }
                for label in shown
            }
            for task, when in product(tasks, ("before", "after"))
        }
        found["-rewards"] = figures.reward_histograms(rewards)
    return found


def _labelled(evidence: Evidence) -> dict[str, tuple[str, int]]:
    """What stands on the x-axis: variants, with the number of demonstrations where there are several."""
    experiment = evidence.experiment
    several = len(experiment.demonstrations) > 1
    return {
        f"{variant}, {count}" if several else variant: (variant, count)
        for count, variant in product(experiment.demonstrations, experiment.variants)
    }


def _errors(evidence: Evidence) -> str:
    rows = []
    for result in evidence.finished:
        own = matching(evidence.rows, result.task, result.variant, result.demonstrations)
        cells = [
            f"{_mean(own, f'{name}_{data}_before_game')} → {_mean(own, f'{name}_{data}')}"
            for name, data in product(ERRORS, DATA)
        ]
        rows.append([str(result.demonstrations), result.task, result.variant, *cells])
    if not rows:
        return ""
    head = ["demonstrations", "task", "variant"]
    head += [f"{title}, held-out {data}" for title, data in product(ERRORS.values(), DATA)]
    return (
        "## Errors of the transition model before → after the game\n\n"
        "Means over seeds. One step: root-mean-square error of the mean prediction in standardised differences. Open "
        "loop: after as many steps as the game's roll-outs have (`simulator.model.horizon`), with recorded actions, in "
        "standardised observations.\n\n" + table(head, rows)
    )


def _mean(rows: list[Row], name: str) -> str:
    return format_number(mean(values(rows, name)))
