"""The built-in datasets: a plain table. Anything else is a plug-in `module:Class`."""

from __future__ import annotations

from wardround.config.job import DataSpec
from wardround.config.plugins import construct, resolve
from wardround.types import Dataset

DATASETS = {
    "wdbc": "wardround.data.datasets.wdbc:WDBC",
    "heart": "wardround.data.datasets.heart:Heart",
    "readmission": "wardround.data.datasets.readmission:Readmission",
    "tcga_brca": "wardround.data.datasets.tcga_brca:TCGABRCA",
    "custom": "wardround.data.datasets.custom:Custom",
    "pima": "wardround.data.datasets.pima:Pima",
    "hypothyroid": "wardround.data.datasets.hypothyroid:Hypothyroid",
}


def build(spec: DataSpec) -> Dataset:
    """The dataset that `spec` names, made with its options; no record is read yet.

    Raises:
        ConfigError: the name is unknown, the plug-in cannot be imported, or the options do not fit it.
    """
    where = "data.dataset"
    dataset: Dataset = construct(resolve(spec.dataset, DATASETS, where), spec.options, where)
    return dataset
