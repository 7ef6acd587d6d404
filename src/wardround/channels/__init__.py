"""How contributions become totals."""
