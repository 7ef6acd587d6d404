"""Preprocessing from the sums of many tables is the preprocessing of the merged table, from text to features."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from wardround.config.job import PreprocessingSpec
from wardround.data.preprocess import Preprocessing, column_means, first_statistics, fit, second_statistics
from wardround.data.tables.schema import Schema
from wardround.data.tables.sites import read_sites
from wardround.types import SiteData

SCHEMA = Schema.parse(
    {
        "columns": {
            "lab": {"kind": "numeric", "missing": [-9]},
            "ward": {"kind": "categorical", "levels": ["a", "b", "c"], "unseen": "other"},
            "stage": {"kind": "ordinal", "levels": ["I", "II", "III"]},
            "smoker": "boolean",
            "y": {"kind": "label", "classes": {"well": [0], "ill": [1]}},
        },
        "small_sites": "drop",
    },
    "schema",
)
CELL = st.tuples(
    st.one_of(st.floats(-1e6, 1e6).map(repr), st.sampled_from(["?", "-9", "", "1e6", "3"])),
    # 'rare' and 'c' may well be at one site alone
    st.sampled_from(["a", "a", "a", "b", "c", "rare", "?"]),
    st.sampled_from(["I", "II", "III", "NA"]),
    st.sampled_from(["yes", "no", ""]),
    st.sampled_from(["0", "1"]),
)
SITES = st.lists(st.lists(CELL, max_size=25), min_size=1, max_size=6).filter(lambda sites: sum(map(len, sites)) > 0)


def fitted(sites: list[SiteData]) -> Preprocessing:
    columns = SCHEMA.features
    first = [first_statistics(columns, site.features) for site in sites]
    total = {name: np.sum([part[name] for part in first], axis=0) for name in first[0]}
    mean = column_means(total)
    second = [second_statistics(columns, site.features, mean) for site in sites]
    return fit(
        columns,
        total,
        {name: np.sum([part[name] for part in second], axis=0) for name in second[0]},
        PreprocessingSpec(indicators=True),
    )


@given(sites=SITES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_of_ragged_sites_are_the_merged_table(sites: list[list[tuple[str, ...]]], tmp_path: Path) -> None:
    header = "lab,ward,stage,smoker,y\n"
    files = {f"h{i}": tmp_path / f"h{i}.csv" for i in range(len(sites))}
    for path, rows in zip(files.values(), sites, strict=True):
        path.write_text(header + "".join(",".join(row) + "\n" for row in rows))
    merged = tmp_path / "merged.csv"
    merged.write_text(header + "".join(",".join(row) + "\n" for rows in sites for row in rows))

    apart = list(read_sites(files, SCHEMA).values())
    together = read_sites({"all": merged}, SCHEMA)["all"]
    of_sums, of_table = fitted(apart), fitted([together])
    assert of_sums.names == of_table.names
    np.testing.assert_allclose(of_sums.mean, of_table.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(of_sums.scale, of_table.scale, rtol=1e-9)
    np.testing.assert_allclose(
        np.concatenate([of_sums.transform(site.features) for site in apart]),
        of_table.transform(together.features),
        rtol=1e-9,
        atol=1e-9,
    )


def test_the_merged_table_is_what_scikit_learn_makes_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "lab": rng.normal(50, 9, 300).round(2),
            "ward": rng.choice(["a", "b", "c", "other"], 300, p=[0.6, 0.2, 0.15, 0.05]),
            "stage": rng.choice(["I", "II", "III"], 300),
            "smoker": rng.choice(["no", "yes"], 300, p=[0.7, 0.3]),
            "y": rng.integers(0, 2, 300),
        }
    )
    for name in ("lab", "ward", "stage", "smoker"):
        frame.loc[rng.random(300) < 0.1, name] = None
    files = {}
    bounds = [0, 3, 4, 90, 300]
    for i, (start, end) in enumerate(pairwise(bounds)):
        files[f"h{i}"] = tmp_path / f"h{i}.csv"
        frame[start:end].to_csv(files[f"h{i}"], index=False)
    sites = list(read_sites(files, SCHEMA).values())
    ours = fitted(sites)

    frame["stage"] = frame["stage"].map({"I": 0.0, "II": 1.0, "III": 2.0})
    # deviations are those of the entries present, so that a gap becomes 0 afterwards
    numeric = make_pipeline(StandardScaler(), SimpleImputer())
    categorical = make_pipeline(
        SimpleImputer(strategy="most_frequent", missing_values=None),
        OneHotEncoder(drop="first", sparse_output=False),
        StandardScaler(),
    )
    reference = ColumnTransformer(
        [
            ("lab", numeric, ["lab"]),
            ("ward", categorical, ["ward"]),
            ("stage", numeric, ["stage"]),
            ("smoker", categorical, ["smoker"]),
        ]
    )
    for name in ("ward", "smoker"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    expected = reference.fit_transform(frame)
    got = np.concatenate([ours.transform(site.features) for site in sites])
    np.testing.assert_allclose(got[:, : expected.shape[1]], expected, rtol=1e-9, atol=1e-9)
