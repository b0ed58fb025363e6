"""The figures of a report, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from app import figures


@dataclass(frozen=True)
class Plot:
    """A figure on the page, with the one sentence that says how to read it."""

    section: str
    title: str
    caption: str
    svg: Markup
    half: bool
    """Whether two of them fit side by side."""


class Plots(list[Plot]):
    """The page's figures. One that cannot be drawn becomes a note: a report must survive an odd file."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def draw(self, section: str, title: str, caption: str, source: str, make: Callable[[], Figure]) -> None:
        try:
            figure = make()
            svg = figures.to_svg(figure, f"figure-{len(self)}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = str(error) if isinstance(error, ValueError) else "it does not have the expected shape"
            reason = f"it has no {error}" if isinstance(error, KeyError) else reason
            self.notes.append(
                f"\N{LEFT DOUBLE QUOTATION MARK}{title}\N{RIGHT DOUBLE QUOTATION MARK} is left out, "
                f"because {source} could not be drawn: {reason}."
            )
        else:
            self.append(Plot(section, title, caption, Markup(svg), half=figure.get_figwidth() <= figures.HALF))
