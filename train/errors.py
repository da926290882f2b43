"""What training can fail with.

TrainError
└── DataError        a corpus file is missing or not what it should be; says which, and what is wrong with it
"""


class TrainError(Exception):
    """The base of everything that this package raises on purpose; its text is one line for a user."""


class DataError(TrainError):
    """A corpus file is missing, lacks a column or holds a value that cannot be."""
