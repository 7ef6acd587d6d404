"""Numbers as text: figures, differences, intervals, bytes, durations. What is undefined is an em dash."""

from __future__ import annotations

from wardround.plots.estimate import Estimate
from wardround.plots.units import byte_unit

UNDEFINED = "—"
_MINUS, _RANGE, _THIN = "\u2212", "\u2013", "\u202f"


def plain(value: float | None) -> str:
    """A figure with three decimals: `0.934`."""
    return UNDEFINED if value is None else f"{value:.3f}".replace("-", _MINUS)


def signed(value: float | None) -> str:
    """A difference with its sign and three decimals, or more where those would hide it: `+0.031`, `−0.0004`."""
    if value is None:
        return UNDEFINED
    digits = 3
    # an interval that ends at 0.0004 does not hold 0, and must not read as if it did
    while value and digits < 6 and round(value, digits) == 0.0:
        digits += 1
    text = f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"
    return text.replace("-", _MINUS)


def interval(figure: Estimate | None) -> str:
    """The interval of a figure, `0.901–0.957`; empty without one."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{plain(figure.low)}{_RANGE}{plain(figure.high)}"


def signed_interval(figure: Estimate | None) -> str:
    """The interval of a difference, `−0.004 to +0.012`; empty without one."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{signed(figure.low)} to {signed(figure.high)}"


def whole(value: float | None) -> str:
    """A whole number in groups of three digits: `131 600`."""
    return UNDEFINED if value is None else f"{round(value):,}".replace(",", _THIN)


def human_bytes(value: float | None) -> str:
    """Bytes in the decimal unit that fits, three digits: `132 kB`."""
    if value is None:
        return UNDEFINED
    divisor, unit = byte_unit(value)
    scaled = value / divisor
    digits = 0 if divisor == 1.0 or scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:.{digits}f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: `3.4 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds is None:
        return UNDEFINED
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def share(part: int | None, total: int | None) -> str:
    """A share in per cent; undefined of nothing."""
    return f"{100 * part / total:.0f} %" if total and part is not None else UNDEFINED
