"""Where the public datasets are officially handed out, with what is known of their files: a plain table.

A checksum stands here only where it was computed from the official file itself. Where none is known, fetching shows what
it computed and asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from wardround.data.datasets import medmnist_sets


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file on the web.

    Attributes:
        url: its address.
        sha256: 64 hexadecimal digits, or None where it is not known.
        size: bytes, or None.
    """

    url: str
    sha256: str | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True, kw_only=True)
class File:
    """One file that the dataset reads.

    Attributes:
        name: under the dataset's folder.
        download: the file itself, or the zip archive that holds it.
        sha256: of the file, or None where it is not known.
        size: bytes, or None.
        member: its name in the archive, at any depth; '' where the download is the file.
        md5: 32 hexadecimal digits, where the publisher gives that and no SHA-256 is known.
    """

    name: str
    download: Download
    sha256: str | None = None
    size: int | None = None
    member: str = ""
    md5: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Many files that come together, without published checksums.

    Attributes:
        name: for messages.
        holds: the files and folders that the dataset reads, under the dataset's folder.
        kaggle: `owner/dataset`, or ''.
        download: a zip archive on the web, or None.
    """

    name: str
    holds: tuple[str, ...]
    kaggle: str = ""
    download: Download | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset.

    Attributes:
        title: what it is.
        folder: under WARDROUND_DATA.
        page: for a person to read.
        licence, citation: to keep, and to cite.
        files: what the dataset reads; () where it needs none.
        trees: folders of files that it reads.
        choice: whether each file is a dataset by itself, so that some are fetched by name.
    """

    title: str
    folder: str
    page: str
    licence: str
    citation: str
    files: tuple[File, ...] = ()
    trees: tuple[Tree, ...] = ()
    choice: bool = False


_BROWNLEE = "https://raw.githubusercontent.com/jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f"
_FLAMBY = (
    "https://raw.githubusercontent.com/owkin/FLamby/edacf54d5211520583b0133d55ac39b6fda8324b"
    "/flamby/datasets/fed_tcga_brca"
)
_ISIC = "https://isic-challenge-data.s3.amazonaws.com/2019"
_FLAMBY_ISIC = (
    "https://raw.githubusercontent.com/owkin/FLamby/edacf54d5211520583b0133d55ac39b6fda8324b"
    "/flamby/datasets/fed_isic2019"
)
_COVID_CT = "https://github.com/UCSD-AI4H/COVID-CT/archive/refs/heads/master.zip"
_UCI_HEART = Download(url="https://archive.ics.uci.edu/static/public/45/heart+disease.zip")
_UCI_DIABETES = Download(
    url="https://archive.ics.uci.edu/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip"
)
_WEKA = Download(
    url=f"{_BROWNLEE}/weka-datasets.zip",
    sha256="9ed84025b63c1f07ef31187283aa353a4b1b73a13f696412a141b3f04bc82f22",
    size=1689897,
)


def _heart(site: str, size: int, sha256: str) -> File:
    name = f"processed.{site}.data"
    return File(name=name, download=_UCI_HEART, member=name, size=size, sha256=sha256)


def _direct(base: str, path: str, size: int, sha256: str) -> File:
    download = Download(url=f"{base}/{path}", size=size, sha256=sha256)
    return File(name=download.name, download=download, size=size, sha256=sha256)


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "wdbc": Source(
            title="breast masses: 30 measures of cell nuclei, malignant or benign",
            folder="",
            page="https://archive.ics.uci.edu/dataset/17/breast+cancer+wisconsin+diagnostic",
            licence="CC BY 4.0",
            citation="W. Wolberg et al.: Breast Cancer Wisconsin (Diagnostic), UCI, 1993, doi:10.24432/C5DW2B",
        ),
        "heart": Source(
            title="coronary disease on angiography at four hospitals",
            folder="uci_heart",
            page="https://archive.ics.uci.edu/dataset/45/heart+disease",
            licence="CC BY 4.0",
            citation="A. Janosi et al.: Heart Disease, UCI Machine Learning Repository, 1989, doi:10.24432/C52P4X",
            files=(
                _heart("cleveland", 18461, "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8"),
                _heart("hungarian", 10263, "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796"),
                _heart("switzerland", 4109, "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314"),
                _heart("va", 6737, "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f"),
            ),
        ),
        "readmission": Source(
            title="diabetic inpatients of 130 hospitals in the USA: back within 30 days?",
            folder="diabetes130",
            page="https://archive.ics.uci.edu/dataset/296/diabetes+130-us+hospitals+for+years+1999-2008",
            licence="CC BY 4.0",
            citation="J. Clore et al.: Diabetes 130-US Hospitals for Years 1999-2008, UCI, 2014, doi:10.24432/C5230J",
            files=(File(name="diabetic_data.csv", download=_UCI_DIABETES, member="diabetic_data.csv"),),
        ),
        "pima": Source(
            title="diabetes within five years, women of Pima heritage",
            folder="pima_diabetes",
            page="https://github.com/jbrownlee/Datasets",
            licence="CC0 1.0",
            citation="J. Smith et al.: Using the ADAP learning algorithm to forecast the onset of diabetes mellitus, 1988",
            files=(
                _direct(
                    _BROWNLEE,
                    "pima-indians-diabetes.csv",
                    23278,
                    "6bfe5d0f379d17a0e0819b996407e3c09bf80febd4287f2ed212190dfff154af",
                ),
            ),
        ),
        "hypothyroid": Source(
            title="thyroid disease of the Garavan Institute: four classes, one of two patients",
            folder="hypothyroid",
            page="https://archive.ics.uci.edu/dataset/102/thyroid+disease",
            licence="CC BY 4.0",
            citation="R. Quinlan: Thyroid Disease, UCI Machine Learning Repository, 1986, doi:10.24432/C5D010",
            files=(
                File(
                    name="hypothyroid.arff",
                    download=_WEKA,
                    member="hypothyroid.arff",
                    size=310897,
                    sha256="9eb504bb1c270d0cc7e1f8cc12351006789c4b43370c3d3528f4f4407bcb68a5",
                ),
            ),
        ),
        "tcga_brca": Source(
            title="breast cancer of The Cancer Genome Atlas in six regions: death within five years",
            folder="tcga_brca",
            page="https://github.com/owkin/FLamby/tree/main/flamby/datasets/fed_tcga_brca",
            licence="GDC open access: no attempt to re-identify",
            citation="J. Ogier du Terrail et al.: FLamby, NeurIPS 2022; J. Liu et al., Cell 173, 2018",
            files=(
                _direct(
                    _FLAMBY, "brca.csv", 113184, "07cb53423f7d579d33cfdbf2cba57b2aee75318b85866c68ce39a75b1f1ba020"
                ),
                _direct(
                    _FLAMBY,
                    "dataset_creation_scripts/train_test_split.csv",
                    28946,
                    "1249c6543a4060ff0fdaf8510fc37017755836db6c9fc5e6af96057c36510990",
                ),
                _direct(
                    _FLAMBY, "centers.csv", 4274, "d610df2dae0203ea229c9579747ed3eb8d28e137c5378f55acc6fe6b4632bb1d"
                ),
            ),
        ),
        "medmnist": Source(
            title="MedMNIST: 18 small sets of pictures and volumes",
            folder="medmnist",
            page=medmnist_sets.PAGE,
            licence="CC BY 4.0; dermamnist CC BY-NC 4.0",
            citation=medmnist_sets.CITATION,
            files=tuple(
                File(
                    name=medmnist_sets.file_name(name, size),
                    download=Download(url=f"{medmnist_sets.FILES}/{medmnist_sets.file_name(name, size)}"),
                    md5=md5,
                )
                for name, one in medmnist_sets.SETS.items()
                for size, md5 in one.md5.items()
            ),
            choice=True,
        ),
        "ham10000": Source(
            title="HAM10000: pigmented skin lesions of four collections, seven diagnoses",
            folder="ham10000",
            page="https://doi.org/10.7910/DVN/DBW86T",
            licence="CC BY-NC 4.0",
            citation="P. Tschandl et al.: The HAM10000 dataset, Scientific Data 5:180161, 2018",
            files=(
                _direct(
                    _FLAMBY_ISIC,
                    "HAM10000_metadata",
                    690218,
                    "de17ec44cb25ea9c3f6378ba18d69224c740afd62e86ec2edc6a894d6aa663d3",
                ),
            ),
            trees=(
                Tree(
                    name="HAM10000 pictures",
                    holds=("HAM10000_images_part_1", "HAM10000_images_part_2"),
                    kaggle="kmader/skin-cancer-mnist-ham10000",
                ),
            ),
        ),
        "isic2019": Source(
            title="ISIC 2019: skin lesions, eight diagnoses, six centres",
            folder="isic2019",
            page="https://challenge.isic-archive.com/data/#2019",
            licence="CC BY-NC 4.0",
            citation="P. Tschandl et al. 2018; N. Codella et al., arXiv:1710.05006; M. Combalia et al., arXiv:1908.02288",
            files=(
                _direct(
                    _FLAMBY_ISIC,
                    "dataset_creation_scripts/train_test_split",
                    1558106,
                    "d0f9d0d0102f60d78b4c5f9f0ef32100881a8e92fe6c38644f980b3eb4e1a86c",
                ),
                *(
                    File(name=name, download=Download(url=f"{_ISIC}/{name}"))
                    for name in ("ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv")
                ),
            ),
            trees=(
                Tree(
                    name="ISIC 2019 pictures",
                    holds=("ISIC_2019_Training_Input",),
                    download=Download(url=f"{_ISIC}/ISIC_2019_Training_Input.zip"),
                ),
            ),
        ),
        "chestxray14": Source(
            title="ChestX-ray14: 112,120 chest X-rays, 14 findings",
            folder="chestxray14",
            page="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            licence="free use with attribution to the NIH Clinical Center",
            citation="X. Wang et al.: ChestX-ray8, CVPR 2017",
            trees=(
                Tree(
                    name="ChestX-ray14",
                    holds=(
                        "Data_Entry_2017.csv",
                        "train_val_list.txt",
                        "test_list.txt",
                        *(f"images_{part:03d}" for part in range(1, 13)),
                    ),
                    kaggle="nih-chest-xrays/data",
                ),
            ),
        ),
        "covid_radiography": Source(
            title="COVID-19 Radiography Database: chest X-rays, four classes",
            folder="COVID-19_Radiography_Dataset",
            page="https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
            licence="research only, with citation; see its page",
            citation="M. Chowdhury et al., IEEE Access 8, 2020; T. Rahman et al., Comput. Biol. Med. 132, 2021",
            trees=(
                Tree(
                    name="COVID-19 Radiography Database",
                    holds=("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"),
                    kaggle="tawsifurrahman/covid19-radiography-database",
                ),
            ),
        ),
        "covid_ct": Source(
            title="COVID-CT: 746 slices from figures of preprints",
            folder="COVID-CT",
            page="https://github.com/UCSD-AI4H/COVID-CT",
            licence="not stated; figures of preprints under licences of their own",
            citation="X. Yang et al.: COVID-CT-Dataset, arXiv:2003.13865",
            trees=(Tree(name="COVID-CT", holds=("Images-processed", "Data-split"), download=Download(url=_COVID_CT)),),
        ),
        "brain_tumor_mri": Source(
            title="Brain Tumor MRI: 7,023 slices, three tumours or none",
            folder="brain_tumor_mri",
            page="https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset",
            licence="CC0 1.0",
            citation="M. Nickparvar: Brain Tumor MRI Dataset, Kaggle, 2021, doi:10.34740/kaggle/dsv/2645886",
            trees=(
                Tree(
                    name="Brain Tumor MRI",
                    holds=("Training", "Testing"),
                    kaggle="masoudnickparvar/brain-tumor-mri-dataset",
                ),
            ),
        ),
    }
)
"""Registry name -> source."""
