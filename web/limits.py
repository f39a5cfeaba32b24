"""How many connections a process takes: each is an open file, and so is most of what a run does."""

import resource

__all__ = ["MAX_VIEWERS", "max_connections", "max_viewers"]

MAX_CONNECTIONS = 10_000
"""Beyond, a request is answered with 503 at once."""
KEPT_FOR_REQUESTS = 100
"""Of the connections: viewers take no more than the rest, so that pages and probes are still answered."""
MAX_VIEWERS = MAX_CONNECTIONS - KEPT_FOR_REQUESTS


def max_connections() -> int:
    """How many this process takes at once; the other half of its open files is for runs."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, open_files // 2)


def max_viewers() -> int:
    """How many of them may be sockets of live pages: the server itself limits requests alone."""
    return max(1, max_connections() - KEPT_FOR_REQUESTS)
