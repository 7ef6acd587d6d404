"""Exit codes: every error of the tree has one, and no user ever sees a bare traceback for something they can mend."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from wardround.errors import INTERRUPTED, StorageError, WardroundError
from wardround.plain import plain_lines

INTERNAL = 70
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def guarded(app: Any, arguments: Sequence[str]) -> int:
    """Run the command line and turn whatever happens into an exit code; the message goes to standard error."""
    try:
        returned = app(list(arguments), standalone_mode=False)
    except KeyboardInterrupt:
        returned = INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - the last place that can say what happened
        returned = _explain(error, as_json="--json" in arguments)
    # the command-line library turns an interruption into this code itself, or into an Abort, by its version
    if returned == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return returned if isinstance(returned, int) else 0


def _explain(error: Exception, *, as_json: bool) -> int:
    if isinstance(error, WardroundError):
        _say(error, str(error), error.exit_code, as_json=as_json)
        return error.exit_code
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error of the command line
        error.show()
        return int(error.exit_code)
    if hasattr(error, "exit_code"):
        return int(error.exit_code)
    if type(error).__name__ == "Abort":
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno in _DISK:
        # temporary folders and libraries write too, past the store
        _say(error, f"{error}: see to the disk, then try again", StorageError.exit_code, as_json=as_json)
        return StorageError.exit_code
    traceback.print_exc()
    text = f"internal error: {type(error).__name__}: {error}. This is a defect: please report it"
    _say(error, text, INTERNAL, as_json=as_json)
    return INTERNAL


def _say(error: Exception, text: str, code: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "error", "kind": type(error).__name__, "message": text, "exit_code": code}))
    print(f"error: {plain_lines(text)}", file=sys.stderr)
