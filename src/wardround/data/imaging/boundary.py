"""The boundary to the libraries that parse images: whatever they raise or warn of, a reader hears one DataError."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wardround.errors import DataError, WardroundError, missing_extra


@contextmanager
def parsing(path: Path, what: str, *, quote: bool = True) -> Iterator[None]:
    """Turn anything raised inside into a DataError that names the file; warnings of the libraries are dropped.

    Args:
        path: the file being read.
        what: what it is read as, for the message.
        quote: whether the library's own words may be repeated. Those about a header can contain its values, and
            therefore a patient's name.

    Raises:
        DataError: the file is not what it should be.
        ConfigError: the library is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except WardroundError:
        raise
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "a library for images", "imaging") from error
    except Exception as error:  # noqa: BLE001 - parsers of hostile files raise everything there is
        words = " ".join(str(error).split())[:200] if quote else ""
        told = type(error).__name__ + (f": {words}" if words else "")
        raise DataError(f"{path} cannot be read as {what} ({told})") from (error if quote else None)
