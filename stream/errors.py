"""What this package raises on purpose; each text is one line for a user: what is wrong, what was expected, what to do.

MMLatchError
├── UsageError       the command line or the configuration is wrong; nothing was started
└── SourceError      the input cannot be opened, or could be read only in part
"""


class MMLatchError(Exception):
    """The base; a command prints its text as one line and exits non-zero."""


class UsageError(MMLatchError):
    """An option, a configuration key or a value that is not understood."""


class SourceError(MMLatchError):
    """An input that does not exist, is no media file, is damaged or ends early."""
