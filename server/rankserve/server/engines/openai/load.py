"""An endpoint's load, out of its `/metrics`."""

import re

from rankserve.server.engines.openai.dialects import LoadMetrics
from rankserve.server.engines.openai.in_flight import Load

# Name, labels or none, value; a timestamp may follow.
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{([^\n]*)\})?[ \t]+(\S+)", re.MULTILINE)
# SGLang tells the requests of each priority beside those of all, whose priority is empty.
_OF_ONE_PRIORITY = re.compile(r'(?:^|,)\s*priority="[^"]')
# More requests than any server has.
_MOST = 1e6


def read_load(text: str, names: LoadMetrics) -> Load | None:
    """The load in a Prometheus text, summed over labels; the KV use is the largest. None if it has none."""
    values: dict[str, list[float]] = {}
    wanted = {names.running, names.waiting, names.kv_use}
    for name, labels, value in _SAMPLE.findall(text):
        if name in wanted and not _OF_ONE_PRIORITY.search(labels):
            try:
                number = float(value)
            except ValueError:
                return None
            if not 0 <= number <= _MOST:
                return None
            values.setdefault(name, []).append(number)
    if names.running not in values or names.waiting not in values:
        return None
    return Load(
        running=int(sum(values[names.running])),
        waiting=int(sum(values[names.waiting])),
        kv_use=max(values.get(names.kv_use, [0.0])),
    )
