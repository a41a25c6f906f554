"""What keeps an engine from being measured."""


class MeasureError(RuntimeError):
    """The engine cannot be measured so. The message says why and what to do, and holds no key."""
