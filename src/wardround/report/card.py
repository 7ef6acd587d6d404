"""The model card: what the model is for, what it is not for, and how well it did.

Source: Mitchell et al. 2019, Model Cards for Model Reporting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from wardround.plots.estimate import Estimate, number
from wardround.plots.labels import count_of, multilabel
from wardround.plots.partition import class_names
from wardround.report import account, classes, fairness, held_out, numbers, operating, tables, withheld
from wardround.report.headline import headline
from wardround.types import SPLITS, Json

CARD = "MODEL_CARD.md"


def write_card(folder: Path, result: Mapping[str, Json]) -> Path:
    """Write `MODEL_CARD.md` into a run's folder, which exists.

    Raises:
        StorageError: it could not be written.
    """
    from wardround.store import atomic

    atomic.write_text(folder / CARD, model_card(result))
    return folder / CARD


def model_card(result: Mapping[str, Json]) -> str:
    """The card as Markdown; names that come from data are escaped."""
    sections = (
        ("Summary", _summary(result)),
        ("The model", _model(result)),
        ("Intended use", _use(result)),
        ("Data", _data(result)),
        ("Preprocessing", _preprocessing(result)),
        ("Selection and threshold", _bullets([account.selection(result), account.threshold(result)])),
        ("Figures on test rows", _figures(result)),
        ("At the decision threshold", _operating(result)),
        ("Class by class", _classes(result)),
        ("Over sites", _fairness(result)),
        ("Sites that never trained", _held_out(result)),
        ("Limits", _limits(result)),
        ("Privacy", _bullets([*account.protects(result), *account.does_not_protect(result)])),
        ("Made with", _environment(result)),
    )
    lines = [f"# Model card: {_safe(result.get('name', 'run'))}", ""]
    for heading, body in sections:
        if not body:
            continue
        lines += [f"## {heading}", "", *body, ""]
    return "\n".join(lines).rstrip() + "\n"


def _safe(text: object) -> str:
    """Text that is neither Markdown nor HTML, on one line."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", line)


def _bullets(sentences: list[str]) -> list[str]:
    return [f"- {_safe(sentence)}" for sentence in sentences]


def _summary(result: Mapping[str, Json]) -> list[str]:
    sentences = headline(result)
    if personal := account.personalised(result):
        sentences.append(personal)
    return [_safe(sentence) for sentence in [" ".join(sentences)]]


def _model(result: Mapping[str, Json]) -> list[str]:
    job, model = result.get("job") or {}, result.get("model") or {}
    algorithm = (job.get("algorithm") or {}).get("name", numbers.UNDEFINED)
    size, shared = (numbers.whole(number(model.get(key))) for key in ("parameters", "shared"))
    seed = f", seed {job['seed']}" if "seed" in job else ""
    facts = [
        f"Network: {model.get('name', numbers.UNDEFINED)}, {size} parameters, {shared} of them shared.",
        f"Trained with {algorithm} for {count_of(int(result.get('rounds') or 0), 'round')}{seed}.",
    ]
    if local := model.get("local_names"):
        facts.append(f"Kept at the sites: {', '.join(str(name) for name in local)}.")
    return _bullets(facts)


def _use(result: Mapping[str, Json]) -> list[str]:
    classes = " / ".join(class_names(result)) or "the classes of the dataset"
    return _bullets(
        [
            f"Meant for research on federated training: it assigns records like those below to {classes}.",
            "It is not a medical device. It has no regulatory clearance and no clinical validation, and must not "
            "inform the diagnosis or the treatment of a patient.",
            "It is not meant for other hospitals, other devices or other patients than those below without a "
            "validation of its own there.",
        ]
    )


def _data(result: Mapping[str, Json]) -> list[str]:
    dataset = result.get("dataset") or {}
    place = "the dataset's own" if dataset.get("natural") else "simulated: one dataset was dealt to them"
    lines = _bullets(
        [
            f"{dataset.get('title') or dataset.get('name') or numbers.UNDEFINED}. "
            f"Source: {dataset.get('source') or 'not stated'}. Licence: {dataset.get('licence') or 'not stated'}.",
            f"Sites are {place}.",
        ]
    )
    rows = tables.partition(result)
    if rows:
        total = rows[-1]
        counts = "all labels" if multilabel(result) else " / ".join(_safe(name) for name in class_names(result))
        lines += ["", f"| {count_of(len(result.get('partition') or {}), 'site')} | {' | '.join(SPLITS)} | all |"]
        lines += ["|---|---:|---:|---:|---:|"]
        cells = [" / ".join(numbers.whole(count) for count in split) for split in (*total.splits, total.classes)]
        lines += [f"| rows, {counts} | {' | '.join(cells)} |"]
    return lines


def _preprocessing(result: Mapping[str, Json]) -> list[str]:
    chosen = ((result.get("job") or {}).get("data") or {}).get("preprocessing") or {}
    features = [str(name) for name in (result.get("preprocessing") or {}).get("features") or ()]
    lines = _bullets([f"{key}: {value if value not in ((), []) else 'none'}" for key, value in chosen.items()])
    fitted = "Fitted on training rows only, from sums that the sites send."
    named = f"{count_of(len(features), 'feature')}: {', '.join(features)}." if features else "No tabular features."
    return [*lines, *_bullets([fitted, named])]


def _figures(result: Mapping[str, Json]) -> list[str]:
    lines: list[str] = []
    for heading, scope in (("All sites pooled", "pooled"), ("Mean over sites", "site_mean")):
        table = tables.comparison(result, scope)
        if table.rows:
            lines += [f"**{heading}**", "", f"| | {' | '.join(table.models)} |"]
            lines += [f"|---|{'---:|' * len(table.models)}"]
            lines += [f"| {title} | {' | '.join(_cell(cell) for cell in cells)} |" for title, cells in table.rows]
            lines += [""]
    return [*lines, *filter(None, [account.intervals(result), account.aggregation(result)])]


def _operating(result: Mapping[str, Json]) -> list[str]:
    rows = operating.operating(result)
    if not rows:
        return []
    lines = [f"| | threshold | {' | '.join(operating.columns())} |", f"|---|---:|{'---:|' * len(operating.columns())}"]
    for row in rows:
        cells = " | ".join(_cell(figure) for figure in row.test)
        lines.append(f"| {row.model} | {numbers.plain(row.threshold)} | {cells} |")
    return lines


def _classes(result: Mapping[str, Json]) -> list[str]:
    lines: list[str] = []
    for model, rows in classes.by_class(result)[:1]:
        lines += [f"**{model}, {'each label' if multilabel(result) else 'each class against the rest'}**", ""]
        lines += [f"| | rows | {' | '.join(classes.columns())} |", f"|---|---:|{'---:|' * len(classes.columns())}"]
        for row in rows:
            cells = " | ".join(_cell(figure) for figure in row.figures)
            lines.append(f"| {_safe(row.name)} | {numbers.whole(row.rows)} | {cells} |")
    if lacking := classes.absent(result):
        lines += ["", _safe(lacking)]
    return lines


def _fairness(result: Mapping[str, Json]) -> list[str]:
    rows = fairness.fairness(result)
    if not rows:
        return _bullets(withheld.sentences(result))
    lines = [
        "| | model | mean | standard deviation | spread | worst tenth | worst |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        figures = " | ".join(
            numbers.plain(n) for n in (row.mean, row.deviation, row.spread, row.worst_tenth, row.worst)
        )
        lines.append(f"| {row.metric} | {row.model} | {figures} ({_safe(row.worst_site)}) |")
    return [
        *lines,
        "",
        *_bullets([*fairness.who_gains(result, tables.site_metric(result)), *withheld.sentences(result)]),
    ]


def _held_out(result: Mapping[str, Json]) -> list[str]:
    rows = held_out.rows(result)
    if not rows:
        return []
    titles = held_out.columns(result)
    lines = [f"| | model | rows | {' | '.join(titles)} |", f"|---|---|---:|{'---:|' * len(titles)}"]
    for row in rows:
        cells = " | ".join(_cell(figure) for figure in row.figures)
        lines.append(f"| {_safe(row.site)} | {row.model} | {numbers.whole(row.rows)} | {cells} |")
    return [*lines, "", *_bullets(held_out.sentences(result))]


def _cell(figure: Estimate | None) -> str:
    ends = numbers.interval(figure)
    return numbers.plain(figure.value if figure else None) + (f" ({ends})" if ends else "")


def _limits(result: Mapping[str, Json]) -> list[str]:
    rows = tables.partition(result)
    counts = rows[-1].splits[SPLITS.index("test")] if rows else ()
    tested = sum(count or 0 for count in counts)
    what = "rows" if None in counts else count_of(tested, "row")
    limits = [
        f"Tested on {what} from the same sites that trained it; figures elsewhere may differ.",
        "Figures of groups of patients (by sex, age or origin) were not computed.",
        "Calibration and threshold belong to the class frequencies of these data.",
    ]
    if not (result.get("dataset") or {}).get("natural"):
        limits.append("The sites are simulated, so differences between real hospitals are not in these figures.")
    return _bullets(limits)


def _environment(result: Mapping[str, Json]) -> list[str]:
    return _bullets([f"{key}: {value}" for key, value in (result.get("environment") or {}).items()])
