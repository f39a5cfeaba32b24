"""The one base of every error this package raises on purpose."""

__all__ = ["InitializerError"]


class InitializerError(Exception):
    """Something went wrong that has a sentence a person can act on: `str(error)`."""
