"""How fast events reach viewers, beside what people would use instead: `python -m benchmarks.delivery`."""
