"""Durations and speeds for people."""


def duration(seconds: float) -> str:
    """To two digits or units: "0.4 s", "3 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02} min"
    return f"{minutes} min {rest_s:02} s" if minutes else f"{rest_s} s"


def speed(per_s: float) -> str:
    """Of something that is counted: by the second, or by the minute or hour where it is slow."""
    if per_s >= 10:
        return f"{per_s:,.0f}/s"
    if per_s >= 1:
        return f"{per_s:.1f}/s"
    if per_s >= 1 / 60:
        return f"{per_s * 60:.1f}/min"
    return f"{per_s * 3600:.1f}/h"
