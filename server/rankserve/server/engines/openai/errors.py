"""What can go wrong between us and an endpoint."""


class EndpointTrouble(Exception):  # noqa: N818 - names what happened, as its children do
    """Base of all. The message holds no prompt and no key."""


class Refused(EndpointTrouble):
    """It will never answer this request, and says why."""


class Busy(EndpointTrouble):
    """It takes no more at the moment.

    Attributes:
        retry_after_s: how long it wants to be left alone; 0 if it does not say.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreachable(EndpointTrouble):
    """There was no connection: the request has not been there."""


class Broken(EndpointTrouble):
    """It took the request and did not answer, or not to the end."""
