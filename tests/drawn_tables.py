"""Score tables as hypothesis draws them: ties and free scores, counts of both classes."""

from __future__ import annotations

from hypothesis import strategies as st

from wardround.training.metrics import ScoreTable

tied = st.integers(0, 8).map(lambda k: k / 8)
free = st.floats(0.0, 1.0, allow_subnormal=False)
rows = st.tuples(st.one_of(tied, free), st.integers(0, 4), st.integers(0, 4))
tables = st.lists(rows, min_size=1, max_size=30).map(
    lambda drawn: ScoreTable(
        scores=[r[0] for r in drawn], positives=[r[1] for r in drawn], negatives=[r[2] for r in drawn]
    )
)
