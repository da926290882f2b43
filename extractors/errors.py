"""What an extractor can fail with.

ExtractorError
└── Unavailable      a part cannot be had on this machine; says which, why, and the way out
"""


class ExtractorError(Exception):
    """The base of everything that this package raises on purpose; its text is one line for a user."""


class Unavailable(ExtractorError):
    """A library, a pretrained file or a model is missing, so the lane that needs it cannot run."""
