"""The private servers of a benchmark, and what is asked of them."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from harness.servers import PostgresServer, RedisServer, open_postgres

__all__ = ["Servers", "open_servers"]

_COUNTED = (
    "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_database ON oid = dbid "
    "WHERE datname = '{}' AND query ~* '^\\s*({})\\M.*\\m(runs|projects)\\M'"
)


class Servers:
    """A Redis that persists nothing, and a PostgreSQL that counts statements; `folder` is for files."""

    def __init__(self, folder: Path, redis_server: RedisServer, postgres: PostgresServer) -> None:
        self.folder, self.redis, self.postgres = folder, redis_server, postgres
        self._client = redis.Redis.from_url(redis_server.url)
        postgres.sql("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        postgres.stop()
        postgres.start()
        postgres.sql("CREATE EXTENSION pg_stat_statements")

    def empty(self) -> str:
        """Empty Redis; gives the address of a new database."""
        self._client.flushall()
        return self.postgres.new_database()

    def commands(self) -> int:
        """Commands that Redis has performed, those of scripts too."""
        stats = self._client.info("commandstats")
        return sum(each["calls"] for name, each in stats.items() if name != "cmdstat_info")

    def writes(self, url: str) -> int:
        """Statements that have changed rows of runs in a database."""
        return self._statements(url, "INSERT|UPDATE|DELETE")

    def reads(self, url: str) -> int:
        """Statements that have read rows of runs in a database."""
        return self._statements(url, "SELECT")

    def _statements(self, url: str, verbs: str) -> int:
        return int(self.postgres.sql(_COUNTED.format(url.rpartition("/")[2], verbs)))


@contextlib.contextmanager
def open_servers() -> Iterator[Servers]:
    """The servers at work."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, open_postgres() as postgres:
        (Path(name) / "redis").mkdir()
        with RedisServer(Path(name) / "redis", "--save", "", "--appendonly", "no") as redis_server:
            yield Servers(Path(name), redis_server, postgres)
