"""The page of a table that was described: what is in it, what is wrong with it, how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from wardround.data.profile.caution import percent
from wardround.plots import profile as drawn
from wardround.plots import small
from wardround.report.figures import pictures_of
from wardround.report.page import html
from wardround.types import Json

PAGE = "profile.html"
LEVELS = {"act": "Before anything is trained or shared", "check": "To check", "note": "To know"}
_DRAWN = {
    "missing": (drawn.missing_by_column, "Share of missing values by column."),
    "missing_sites": (drawn.missing_by_site, "Share of missing values by column and site."),
    "labels": (drawn.label_by_site, "Share of each class, in all rows and by site."),
    "sites": (drawn.rows_by_site, "Rows of each site."),
    "correlation": (drawn.correlation, "Rank correlations of the numeric columns."),
    "telling": (drawn.telling, "AUROC of each column alone for the label."),
}


def write(path: Path, profile: Mapping[str, Json], schema: str) -> Path:
    """Write the page.

    Args:
        path: the file.
        profile: the tree of a profile.
        schema: the draft, as YAML.

    Raises:
        StorageError: it could not be written.
    """
    from wardround.store import atomic

    atomic.write_text(path, page(profile, schema))
    return path


def page(profile: Mapping[str, Json], schema: str) -> str:
    """The page as HTML; every name that comes from data is escaped."""
    source = resources.files("wardround.report").joinpath("profile.html.j2").read_text(encoding="utf-8")
    return html(source, _facts(profile) | {"schema": schema, "pictures": pictures_of(_DRAWN, profile)})


def _facts(profile: Mapping[str, Json]) -> dict[str, Any]:
    import markupsafe

    def safe(text: str) -> Any:
        return markupsafe.Markup(text)  # made here of numbers and escaped names

    cautions = profile["cautions"]
    return {
        "profile": profile,
        "share": percent,
        "told": partial(values, below=profile["below"]),
        "groups": [
            (title, [caution for caution in cautions if caution["level"] == level])
            for level, title in LEVELS.items()
            if any(caution["level"] == level for caution in cautions)
        ],
        "counts": kind_counts(profile),
        "columns": [
            column
            | {
                "rows": profile["rows"],
                "picture": safe(small.histogram(column["histogram"], profile["below"])) if column["histogram"] else "",
                "boxes": safe(small.boxes(column["boxes"])),
                "most": max([level["rows"] or 0 for level in (column["levels"] or {}).get("shown", ())], default=0),
                "warned": sorted({c["kind"] for c in cautions if column["name"] in c["columns"]}),
            }
            for column in profile["columns"]
        ],
    }


def kind_counts(profile: Mapping[str, Json]) -> str:
    """`7 numeric, 5 categorical, ...`, the most frequent first."""
    counts: dict[str, int] = {}
    for column in profile["columns"]:
        counts[column["kind"]] = counts.get(column["kind"], 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))


def values(column: Mapping[str, Json], below: int) -> str:
    """What a column holds, in one line: range and median, levels with rows, years, or the number of values."""
    about = "" if column["distinct_exact"] else "about "
    if column["numbers"]:
        n = column["numbers"]
        return f"{n['min']:.4g} to {n['max']:.4g}, median {n['median']:.4g}".replace("-", "\u2212")
    if column["levels"]:
        shown = [
            f"{level['name']} {'<' + str(below) if level['rows'] is None else format(level['rows'], ',')}"
            for level in column["levels"]["shown"][:6]
        ]
        rest = len(column["levels"]["shown"]) - len(shown) + column["levels"]["others"]
        return ", ".join(shown) + (f", {rest} more" if rest else "")
    if column["years"]:
        return f"years {column['years'][0]} to {column['years'][1]}"
    if not column["distinct"]:
        return "nothing"
    return f"{about}{column['distinct']:,} different value{'' if column['distinct'] == 1 else 's'}"
