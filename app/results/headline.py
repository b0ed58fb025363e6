"""The page that compares methods: their share of the expert's return on every task."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from app.results import figures
from app.results.aggregate import matching, values
from app.results.evidence import Evidence
from app.results.tables import counted, format_number, percent, table

NOT_JOINED = (
    "A policy is the average of what was learned in the Simulator and of what was cloned, where that pays "
    "(`join_cloned`): *not joined* is the mean return of the former alone, over the seeds where they were joined."
)


def sections(evidence: Evidence) -> list[str]:
    """The table of returns."""
    return [returns(evidence)]


def drawn(evidence: Evidence) -> dict[str, Figure]:
    """Shares of the expert's return: rows for numbers of demonstrations, columns for tasks."""
    experiment = evidence.experiment
    panels = {
        counted(count, "demonstration"): {
            task: {
                variant: values(matching(evidence.rows, task, variant, count), "share_of_expert")
                for variant in experiment.variants
            }
            for task in experiment.tasks
        }
        for count in experiment.demonstrations
    }
    return {"": figures.share_bars(panels)}


def returns(evidence: Evidence) -> str:
    """Markdown: a table of the returns of every variant of which a run is finished."""
    finished = evidence.finished
    if not finished:
        return ""
    rows = []
    told = any(math.isfinite(result.alone) for result in finished)  # earlier runs did not measure it
    for result in finished:
        returned = [_with_error(result.expert, result.expert_error), _amount(result.demonstrated)]
        returned += [_amount(result.cloned), _with_error(result.mean, result.error)]
        believed = [_with_error(round(result.promised, 0), result.promised_error), _amount(round(result.paid, 0))]
        low, high = (percent(bound) for bound in result.interval)
        rows.append(
            [
                str(result.demonstrations),
                result.task,
                result.variant,
                *returned,
                *map(_amount, (result.minimum, result.spread)),
                percent(result.share),
                f"{percent(result.share_middle)} [{low}, {high}]",
                *([_amount(result.alone)] if told else []),
                " / ".join(believed),
                f"{result.finished} of {result.planned}",
            ]
        )
    head = ["demonstrations", "task", "variant", "expert", "demonstrated", "cloned", "mean return", "lowest", "spread"]
    head += ["share of expert", "interquartile mean of the share", *(["not joined"] if told else [])]
    head += ["promised / paid", "seeds"]
    return (
        "## Returns in the real task\n\n"
        "Every figure is about the last policy of a run, never the best of it. Lowest and spread (standard deviation) "
        "are over seeds; the interval is the 95% bootstrap interval of the interquartile mean over seeds, which drops "
        "nothing of up to three. Behind \N{PLUS-MINUS SIGN} stands the standard error that the number of episodes "
        "leaves, where it is on record. *Demonstrated* is what the episodes return that these runs learned from, "
        "some of which may have failed. *Cloned* is what these runs began with. *Promised* is the policy's return "
        "in the Simulator at the end of training, *paid* that in the real task, both in learned reward (about 1 a step "
        "for the demonstrations)." + (f" {NOT_JOINED}" if told else "") + "\n\n" + table(head, rows)
    )


def _with_error(value: float, error: float) -> str:
    if not math.isfinite(error):
        return _amount(value)
    told = max(round(error), 1) if abs(value) >= 1000.0 else float(f"{error:.2g}")
    return f"{_amount(value)} \N{PLUS-MINUS SIGN} {format_number(told)}"


def _amount(value: float) -> str:
    """To whole numbers from a thousand on, and to tenths below."""
    return format_number(round(value, 0 if abs(value) >= 1000.0 else 1))
