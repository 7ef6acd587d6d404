"""The report's figures: which there are, what a reader who cannot see them is told, and their bytes."""

from __future__ import annotations

import base64
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from wardround import plots
from wardround.types import Json

if TYPE_CHECKING:
    from wardround.plots.canvas import Draw, Paint

DRAWN: Mapping[str, tuple[Draw, str]] = {
    "comparison": (plots.comparison, "Dots with 95 % intervals of the pooled test figures of every model."),
    "sites": (plots.by_site, "Test figures of every site: the federated model against the site's own."),
    "partition": (plots.partition, "Rows of every site by class and by split."),
    "classes": (
        plots.class_mix,
        "Rows of every class at every site, or how the classes' shares spread over many sites.",
    ),
    "sizes": (plots.site_sizes, "Rows of every site, from the largest to the smallest."),
    "shift": (plots.feature_shift, "How far the columns of every site lie from those of all sites together."),
    "loss": (plots.loss_by_round, "Validation loss by completed rounds, the kept round marked."),
    "ranking": (plots.ranking_by_round, "Validation AUROC or accuracy by completed rounds, the kept round marked."),
    "communication": (plots.by_bytes, "Validation figure of the federated model by bytes sent so far."),
    "labels": (plots.by_label, "AUROC of every label with 95 % intervals, a dot a model."),
    "calibration": (plots.calibration, "Observed frequency by predicted probability; the diagonal is perfect."),
    "roc": (plots.roc, "Sensitivity by 1 \u2212 specificity; the diagonal is chance."),
    "precision_recall": (
        plots.precision_recall,
        "Precision by recall; the dashed line is the fraction of positive rows.",
    ),
    "confusion_federated": (plots.confusion, "Test rows by true and predicted class, federated model."),
    "confusion_centralized": (
        partial(plots.confusion, model="centralized"),
        "Test rows by true and predicted class, centralised model.",
    ),
    "confusion_finetuned": (
        partial(plots.confusion, model="finetuned"),
        "Test rows by true and predicted class, fine-tuned models.",
    ),
    "confusion_local": (
        partial(plots.confusion, model="local"),
        "Test rows by true and predicted class, each site alone.",
    ),
    "gain": (plots.gain_by_site, "Federated minus own model at every site, sorted, with paired 95 % intervals."),
    "overview": (plots.overview, "Convergence and comparison in one picture."),
}
"""File stem -> how it is drawn, and its text for those who cannot see it."""

NOT_ON_THE_PAGE = frozenset({"overview"})


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure, ready for the page and the folder.

    Attributes:
        name: the file's stem.
        text: what it shows, for those who cannot see it.
        png: PNG bytes, light.
        light: SVG as a data URI; empty for a figure that the page leaves out.
        dark: the same on dark paper.
        width: CSS pixels.
        height: CSS pixels.
    """

    name: str
    text: str
    png: bytes
    light: str
    dark: str
    width: int
    height: int


def pictures(result: Mapping[str, Json]) -> dict[str, Picture]:
    """Every figure that the result has data for."""
    return pictures_of(DRAWN, result, off_page=NOT_ON_THE_PAGE)


def pictures_of(
    drawn: Mapping[str, tuple[Draw, str]], subject: Mapping[str, Json], *, off_page: Container[str] = ()
) -> dict[str, Picture]:
    """Those of some figures that there is data for.

    Args:
        drawn: file stem -> how it is drawn, and its text for those who cannot see it.
        subject: what they draw.
        off_page: stems of those that no page shows.
    """
    made = (picture_of(n, text, partial(draw, subject), on_page=n not in off_page) for n, (draw, text) in drawn.items())
    return {picture.name: picture for picture in made if picture is not None}


def picture_of(name: str, text: str, draw: Paint, *, on_page: bool = True) -> Picture | None:
    """One figure as PNG and, for a page, as SVG on light and dark paper; None where there is nothing to draw."""
    figure = draw(plots.LIGHT)
    if figure is None:
        return None
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    light = dark = ""
    if on_page:
        shown = plots.render(figure, "svg")
        light = _uri(shown)
        # once drawn, its layout is settled: finding it again costs as much as drawing
        figure.set_layout_engine("none")
        turned = plots.darkened(shown)
        if turned is None:
            twin = draw(plots.DARK)
            turned = plots.render(twin, "svg") if twin else shown
        dark = _uri(turned)
    png = plots.render(figure, "png")
    return Picture(name=name, text=text, png=png, light=light, dark=dark, width=width, height=height)


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
