"""Exit codes: every error of the tree has one, and no user ever sees a bare traceback for something they can mend."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from wardround.errors import INTERRUPTED, WardroundError

INTERNAL = 70


def guarded(app: Any, arguments: Sequence[str]) -> int:
    """Run the command line and turn whatever happens into an exit code; the message goes to standard error."""
    try:
        returned = app(list(arguments), standalone_mode=False)
    except KeyboardInterrupt:
        print("interrupted; a run goes on with `wardround resume DIR`", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - the last place that can say what happened
        return _explain(error, as_json="--json" in arguments)
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
    traceback.print_exc()
    text = f"internal error: {type(error).__name__}: {error}. This is a defect: please report it"
    _say(error, text, INTERNAL, as_json=as_json)
    return INTERNAL


def _say(error: Exception, text: str, code: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "error", "kind": type(error).__name__, "message": text, "exit_code": code}))
    print(f"error: {text}", file=sys.stderr)
