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
    "images": "wardround.data.datasets.images:Images",
    "pima": "wardround.data.datasets.pima:Pima",
    "hypothyroid": "wardround.data.datasets.hypothyroid:Hypothyroid",
    "medmnist": "wardround.data.datasets.medmnist:MedMNIST",
    "ham10000": "wardround.data.datasets.ham10000:HAM10000",
    "isic2019": "wardround.data.datasets.isic2019:ISIC2019",
    "chestxray14": "wardround.data.datasets.chestxray14:ChestXray14",
    "covid_radiography": "wardround.data.datasets.covid_radiography:CovidRadiography",
    "covid_ct": "wardround.data.datasets.covid_ct:CovidCT",
    "brain_tumor_mri": "wardround.data.datasets.brain_tumor_mri:BrainTumorMRI",
}


def build(spec: DataSpec) -> Dataset:
    """The dataset that `spec` names, made with its options; no record is read yet.

    Raises:
        ConfigError: the name is unknown, the plug-in cannot be imported, or the options do not fit it.
    """
    where = "data.dataset"
    dataset: Dataset = construct(resolve(spec.dataset, DATASETS, where), spec.options, where)
    return dataset
