"""What can go wrong in an export.

ExportError
├── SourceError   the run or checkpoint folder cannot be exported as it is
└── GateError     it was exported, and a check says that it must not be published
"""


class ExportError(ValueError):
    """An export that was refused. The message says why and what to do."""


class SourceError(ExportError):
    """The folder to export is incomplete, unreadable or not a ranker."""


class GateError(ExportError):
    """The exported model failed a check; nothing was published. The message carries the figures."""
