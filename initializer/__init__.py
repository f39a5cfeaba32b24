"""Initialises projects: the domain. Knows neither HTTP nor HTML."""

__version__ = "0.1.0"
