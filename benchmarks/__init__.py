"""Measurements of the product, each one command; `docs/performance.md` tells what they showed."""
