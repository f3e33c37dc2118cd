"""Errors whose text is meant for the person at the terminal: a sentence that ends with the next step."""


class RunnerError(Exception):
    """Input or set-up can't be used; the message names the option, its value and the next step."""


class LibraryMissingError(RunnerError):
    """A shared library that a cell needs is not on this machine."""


class StorageError(RunnerError):
    """The disk is full: the sweep stops, and every job that had ended is kept."""


class FormatError(RunnerError):
    """A stored file that is torn, damaged, too large, or not of the shape it should have."""


class VersionError(FormatError):
    """A stored file that is of another version and shows no damage."""
