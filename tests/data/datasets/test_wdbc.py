import subprocess
import sys

import numpy as np
import pytest

from wardround.data.datasets import wdbc
from wardround.data.datasets.wdbc import WDBC
from wardround.errors import DataError


def test_label_one_is_malignant() -> None:
    data = WDBC().load("wdbc")
    # 212 malignant and 357 benign masses in the original paper; malignant nuclei are the larger ones
    assert np.bincount(data.labels).tolist() == [357, 212]
    assert data.features.shape == (569, 30)
    assert data.labels.dtype == np.int64
    assert data.features[data.labels == 1, 0].mean() > data.features[data.labels == 0, 0].mean() + 4
    assert WDBC().describe().classes == ("benign", "malignant")


def test_each_row_is_a_patient_without_gaps() -> None:
    data = WDBC().load("wdbc")
    assert len(np.unique(data.patients)) == 569
    assert np.isfinite(data.features).all()
    assert data.split is None


def test_column_names_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_breast_cancer

    assert [column.name for column in WDBC().describe().columns] == load_breast_cancer().feature_names.tolist()


def test_the_rows_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_breast_cancer

    data, (features, benign) = WDBC().load("wdbc"), load_breast_cancer(return_X_y=True)
    np.testing.assert_array_equal(data.features, features)
    np.testing.assert_array_equal(data.labels, 1 - benign)


def test_without_its_file_scikit_learn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = WDBC().load("wdbc")
    monkeypatch.setattr(wdbc, "find_spec", lambda name: None)
    found = WDBC().load("wdbc")
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.dtype == expected.labels.dtype


def test_reading_does_not_import_scikit_learn() -> None:
    code = "import sys; from wardround.data.datasets.wdbc import WDBC; WDBC().load('wdbc'); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_site() -> None:
    with pytest.raises(DataError, match="'wisconsin'"):
        WDBC().load("wisconsin")
