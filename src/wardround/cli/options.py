"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output, the result last.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Leave out report.html and the figures.")]
