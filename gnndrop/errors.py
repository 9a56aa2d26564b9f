"""The errors gnndrop raises: each is a `GnndropError` and also the builtin that fits.

    GnndropError
    ├── UnknownNameError   (KeyError)         no operator, dataset or model of that name
    ├── ParameterError     (ValueError)       a value out of its range, a spec that cannot be read
    ├── AttachError        (TypeError)        an operator that makes no sense on this model
    ├── DataError          (OSError)          data that is missing, corrupt or cannot be fetched
    └── DivergedError      (ArithmeticError)  training produced a loss that is not finite

Every message is one sentence: what must hold, what was got, what to do.
"""


class GnndropError(Exception):
    """Base of every error that gnndrop raises on purpose."""


class UnknownNameError(GnndropError, KeyError):
    """A name that no registry knows."""

    def __str__(self) -> str:
        # KeyError would print the message in quotes.
        return str(self.args[0])


class ParameterError(GnndropError, ValueError):
    """A value outside of its range, or a spec string that cannot be read."""


class AttachError(GnndropError, TypeError):
    """An operator that has no place in the given model."""


class DataError(GnndropError, OSError):
    """Data that is missing, corrupt, or cannot be fetched."""


class DivergedError(GnndropError, ArithmeticError):
    """Training produced a loss that is not finite."""
