"""Where the files of datasets that are not bundled lie: the folder in the environment variable WARDROUND_DATA."""

from __future__ import annotations

import os
from pathlib import Path

from wardround.errors import DataError

VARIABLE = "WARDROUND_DATA"


def data_root(dataset: str, *, layout: str, source: str) -> Path:
    """The folder of data files, read from the environment at each call.

    Args:
        dataset: registry name, for the error.
        layout: the files that the dataset expects under the folder, for the error.
        source: where the files are officially handed out, for the error.

    Raises:
        DataError: the variable is unset or empty, or names no folder.
    """
    value = os.environ.get(VARIABLE, "")
    advice = f"set {VARIABLE} to the folder that holds {layout} (from {source})"
    if not value:
        raise DataError(f"the dataset '{dataset}' needs files, and {VARIABLE} is not set: {advice}")
    root = Path(value).expanduser()
    if not root.is_dir():
        raise DataError(f"the dataset '{dataset}' needs files, and {VARIABLE}={value} is not a folder: {advice}")
    return root
