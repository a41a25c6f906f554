"""What can go wrong while answers are collected.

::

    CollectionError       the run cannot begin or go on; the message says what to do
    └── EndpointError     because of what the endpoint answers, or that it does not
    PromptRefusedError    the endpoint will never answer this prompt; the others go on
    UnansweredError       this request brought nothing usable; the next may
"""


class CollectionError(ValueError):
    """A run that cannot begin or go on. The message says what to do."""


class EndpointError(CollectionError):
    """The endpoint refuses every request, or is not what it should be."""


class PromptRefusedError(Exception):
    """The endpoint refuses one prompt for good, say because it is too long for the model."""


class UnansweredError(Exception):
    """A request without a usable answer.

    Attributes:
        retry_after_s: how long the endpoint asks everybody to wait, None if it does not say.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
