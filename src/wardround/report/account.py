"""How the run chose what it chose, and what it does and does not protect, in sentences that its job supports."""

from __future__ import annotations

from collections.abc import Mapping

from wardround.plots.estimate import number
from wardround.plots.labels import MODELS, class_count, many_classes, multilabel
from wardround.report import carried
from wardround.types import Json

_SELECTION = {
    "loss": "the one with the lowest validation loss",
    "auroc": "the one with the highest validation AUROC",
    "auprc": "the one with the highest validation AUPRC",
    "last": "the last one; no figure chose it",
}
_THRESHOLD = {
    "balanced": "chosen on validation rows only, to maximise balanced accuracy",
    "accuracy": "chosen on validation rows only, to maximise accuracy",
}


def selection(result: Mapping[str, Json]) -> str:
    """How the round was chosen whose model is kept."""
    chosen = ((result.get("job") or {}).get("evaluation") or {}).get("select")
    if chosen not in _SELECTION:
        return f"The kept model is that of round {result.get('selected_round')}; how it was chosen is not recorded."
    how = _SELECTION[chosen]
    only = "" if chosen == "last" else ", on validation rows only"
    return (
        f"The kept model is that of round {result.get('selected_round')} of {result.get('rounds')}: {how}{only}. "
        "Test rows took no part in it."
    )


def threshold(result: Mapping[str, Json]) -> str:
    """How the decision threshold was set."""
    rule = ((result.get("job") or {}).get("evaluation") or {}).get("threshold")
    if multilabel(result):
        own = "Each label has a threshold of its own, chosen on validation rows only. Test rows took no part in it."
        fixed = f"A row is called to have a label from a probability of {rule} on, fixed in the job before training."
        return own if isinstance(rule, str | Mapping) else fixed
    if class_count(result) > 2:
        return "A row is called the most probable class; more than two classes have no threshold."
    if isinstance(rule, Mapping):
        name, value = next((name, value) for name, value in rule.items() if value is not None)
        other = {"sensitivity": "specificity", "specificity": "sensitivity"}[name]
        return (
            f"The decision threshold was chosen on validation rows only, to reach a {name} of {value:g} at the best {other}. "
            "Test rows took no part in it, so the figure there may lie on either side; intervals hold the threshold fixed."
        )
    if isinstance(rule, str) and rule in _THRESHOLD:
        return f"The decision threshold was {_THRESHOLD[rule]}. Test rows took no part in it."
    if rule is None:
        return "How the decision threshold was set is not recorded."
    return f"The decision threshold is {rule}, fixed in the job before training."


def aggregation(result: Mapping[str, Json]) -> str:
    """Whether figures are of rows or of groups; empty where they are of rows."""
    how = ((result.get("job") or {}).get("evaluation") or {}).get("aggregate") or "none"
    if how == "none":
        return ""
    which = {"mean": "mean", "max": "largest"}[how]
    return (
        f"Figures are of groups, not of rows: a lesion's, study's or patient's rows share the {which} of their scores and the "
        "highest of their labels. Counts of rows in the tables of the data stay those of rows."
    )


def thresholds(result: Mapping[str, Json]) -> list[tuple[str, float]]:
    """Title of the model and its threshold, as a probability."""
    given = {model: number((result.get("thresholds") or {}).get(model)) for model in MODELS}
    return [(MODELS[model], value) for model, value in given.items() if value is not None]


def intervals(result: Mapping[str, Json]) -> str:
    """What the intervals are, and what they leave out."""
    evaluation = (result.get("job") or {}).get("evaluation") or {}
    resamples = evaluation.get("bootstrap")
    if not resamples:
        return "The job asked for no resampling, so figures carry no intervals and no difference is claimed."
    return (
        f"Intervals are 95\u00a0% bootstrap intervals from {resamples} resamples of the test records, drawn within each site; "
        "a paired difference compares both models on the same resamples. They show the chance in which records were tested, "
        "not the chance in training, and are not adjusted for reading many of them." + _from_sums(result, evaluation)
    )


def _from_sums(result: Mapping[str, Json], evaluation: Mapping[str, Json]) -> str:
    if not many_classes(result) or evaluation.get("release_scores") is not False:
        return ""
    return (
        " Sums do not say how the classes' histograms hang together, so intervals of macro areas are those of classes that all "
        "err at once: rather too wide than too narrow."
    )


def personalised(result: Mapping[str, Json]) -> str:
    """What personalised figures are; empty where the model is one for all."""
    tuned = _finetuned(result)
    if not result.get("personalized"):
        return tuned
    names = [str(name) for name in (result.get("model") or {}).get("local_names") or ()]
    kept = f"Each site keeps parts of the model to itself ({', '.join(names)}). " if names else ""
    if (((result.get("job") or {}).get("data") or {}).get("preprocessing") or {}).get("standardize") == "site":
        kept += "Each site standardises its columns by its own mean and deviation. "
    if (((result.get("job") or {}).get("data") or {}).get("preprocessing") or {}).get("pictures") == "site":
        kept += "Each site standardises its pictures by its own mean and deviation of each channel. "
    stranger = (
        "For a site that took no part, an average of the sites' own parts was made through the channel."
        if result.get("overlay_average")
        else "The run holds no figures for a site that took no part."
    )
    return (
        f"The figures are personalised. {kept}Pooled figures score each row with its own site's model, so they do not "
        f"say how the shared part alone would do elsewhere. {stranger} {tuned}".rstrip()
    )


def _finetuned(result: Mapping[str, Json]) -> str:
    facts = result.get("finetuning") or {}
    if not facts:
        return ""
    kept, most = facts.get("selected_epoch"), facts.get("epochs")
    return (
        f"The fine-tuned figures are personalised: each site trained the federated model on, on its own training rows, for "
        f"{kept} of at most {most} epochs (chosen on validation rows), and each row is scored by its own site's model. They "
        "do not hold for a site that took no part."
    )


def protects(result: Mapping[str, Json]) -> list[str]:
    """What the way of this run keeps from whom."""
    sent = [
        "Training sends model updates, counts and sums from a site to the server, not records.",
        *carried.hides(result),
    ]
    if _simulated(result):
        return [
            "All sites ran in one process on one machine: that process could read every record. What follows "
            "describes the messages as they would cross a network.",
            *sent,
        ]
    return sent


def does_not_protect(result: Mapping[str, Json]) -> list[str]:
    """What remains open, sentence by sentence."""
    job = result.get("job") or {}
    privacy = job.get("privacy") or {}
    sentences = carried.open_ends(result)
    if not privacy.get("dp"):
        sentences.append(
            "There is no differential privacy: no bound limits what the model, the updates or these figures tell about "
            "one patient."
        )
    sentences.append(_scores(job, simulated=_simulated(result)))
    if result.get("partition"):
        sentences.append(
            "The report of this run shows counts and figures of single sites, some from few patients. Check them against "
            "your own rules on small numbers before you pass it on."
        )
    if result.get("centralized"):
        sentences.append(
            "The centralised baseline merges the records of all sites. It is possible in a simulation only, and says "
            "nothing about what hospitals may do."
        )
    return sentences


def _simulated(result: Mapping[str, Json]) -> bool:
    return bool(((result.get("job") or {}).get("engine") or {}).get("kind", "local") == "local")


def _scores(job: Mapping[str, Json], *, simulated: bool) -> str:
    release = (job.get("evaluation") or {}).get("release_scores")
    if release or (release is None and simulated):
        return "For exact pooled figures the sites handed out the score and the label of every test row."
    return "Scores and labels of test rows stayed at the sites; pooled figures come from summed histograms."
