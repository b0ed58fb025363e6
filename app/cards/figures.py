"""The plots of a card that a report has not."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from app.cards.contenders import POLICY, RANDOM
from app.figures import COLORS, HALF, INK, OTHER_COLORS, STYLE


@matplotlib.rc_context(STYLE)
def returns(contenders: Mapping[str, Mapping[str, float]]) -> Figure:
    """Returns of policies of many qualities, from ``app.cards.measure``: in the Simulator over in the real task."""
    figure = Figure(figsize=(HALF, 3.3), layout="constrained")
    axis = figure.subplots()
    kinds = {POLICY: COLORS["policy"], RANDOM: INK, "noise": COLORS["roll-out"], "force": OTHER_COLORS[0]}
    for kind, tint in kinds.items():
        points = [each for name, each in contenders.items() if kind in name]
        label = {"noise": "policy and noise", "force": "policy, less force"}.get(kind, kind)
        axis.plot([p["real"] for p in points], [p["simulator"] for p in points], "o", color=tint, label=label)
    axis.set(xlabel="return in the real task", ylabel="learned return in the simulator")
    figure.legend(loc="outside upper left", ncols=2)
    return figure
