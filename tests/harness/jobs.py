"""The jobs of the queue, as they stand in Redis."""

from typing import Any

import redis

__all__ = ["Jobs"]

_LISTS, _SETS = ("wait", "active"), ("prioritized", "delayed", "completed", "failed")


class Jobs:
    """Reads, and sometimes harms, the queue that the app shares with BullMQ's own tools."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=5)

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def state(self, project: str, *, number: int = 1) -> str:
        """Where the job of the project's try of that number stands; empty where there is none."""
        job = _job(project, number)
        for name in _LISTS:
            if job in self._ask("lrange", _key(name), 0, -1):
                return name
        return next((name for name in _SETS if self._ask("zscore", _key(name), job) is not None), "")

    def job(self, project: str) -> dict[str, str]:
        """The job's fields."""
        fields: dict[str, str] = self._ask("hgetall", _key(_job(project)))
        return fields

    def log(self, project: str, *, number: int = 1) -> list[str]:
        """The log of the job of the project's try of that number."""
        lines: list[str] = self._ask("lrange", _key(f"{_job(project, number)}:logs"), 0, -1)
        return lines

    def deliver_again(self, project: str) -> None:
        """Have a job that failed wait once more, as the button on Bull Board does."""
        assert self._ask("zrem", _key("failed"), _job(project)) == 1
        self._ask("rpush", _key("wait"), _job(project))
        self._ask("zadd", _key("marker"), {"0": 0})

    def lose_lock(self, project: str) -> None:
        """Have BullMQ believe that the worker of the job has died."""
        assert self._ask("delete", _key(f"{_job(project)}:lock")) == 1

    def wipe(self) -> None:
        """Forget the queue, and nothing else."""
        self._ask("delete", *self._ask("keys", _key("*")))

    def _ask(self, command: str, *values: Any) -> Any:
        return getattr(self._client, command)(*values)


def _key(name: str) -> str:
    return f"bull:projects:{name}"


def _job(project: str, number: int = 1) -> str:
    return f"{project}-{number}"
