"""Rules over Totals."""
