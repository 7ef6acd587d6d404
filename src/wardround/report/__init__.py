"""What is done with a finished run: the page, the card."""

from __future__ import annotations

from wardround.report.card import model_card, write_card
from wardround.report.page import build

__all__ = ["build", "model_card", "write_card"]
