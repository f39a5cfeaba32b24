"""The settings: one frozen value, built once from the environment. README lists them all."""

import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from initializer.errors import InitializerError
from initializer.projects.address import sqlite_address

__all__ = ["BadSetting", "Settings"]

INLINE, BULLMQ = "inline", "bullmq"
_POSTGRESQL_PARAMETERS = {"sslmode", "sslrootcert"}


class BadSetting(InitializerError):
    """A setting has a value that cannot be meant; `name` is its variable."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set; field `max_concurrent_runs` is variable `MAX_CONCURRENT_RUNS`."""

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = "http://localhost:8000"
    data_dir: Path = Path("data")
    database_url: str = ""
    database_pool_size: int = 10
    redis_url: str = ""
    lease_s: int = 5
    shutdown_grace_s: int = 10
    engine: str = INLINE
    log_level: str = "INFO"
    max_concurrent_runs: int = 4
    journal_retention_days: int = 7
    trust_network: bool = False
    embed_origins: tuple[str, ...] = ()
    frames_per_second: int = 33
    compress_frames: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in an environment; empty variables count as not set. Raises `BadSetting`."""
        given = {name: value for name in _PARSERS if (value := environ.get(name.upper(), "").strip())}
        values = {name: _PARSERS[name](name.upper(), text) for name, text in given.items()}
        settings = msgspec.convert(values, cls, strict=True) if values else cls()
        settings = msgspec.structs.replace(settings, data_dir=settings.data_dir.absolute())
        if "database_url" not in given:
            address = sqlite_address(settings.data_dir / "projects.db")
            settings = msgspec.structs.replace(settings, database_url=address)
        settings._check_servers(has_public_url="public_url" in given)
        settings._check_exposure()
        if "public_url" not in given:
            settings._check_stays_here()
            settings = msgspec.structs.replace(settings, public_url=f"http://localhost:{settings.port}")
        return settings

    @property
    def has_workers(self) -> bool:
        """Whether runs are performed by processes of their own, which take them from a queue."""
        return self.engine == BULLMQ

    @property
    def is_on_servers(self) -> bool:
        """Whether any number of processes may work: rows in PostgreSQL, events in Redis."""
        return self.database_url.startswith("postgresql:")

    def _check_servers(self, *, has_public_url: bool) -> None:
        if self.is_on_servers and not self.redis_url:
            raise BadSetting(
                "REDIS_URL", "is not set, but DATABASE_URL names PostgreSQL: the two servers go together"
            )
        if self.redis_url and not self.is_on_servers:
            raise BadSetting(
                "DATABASE_URL",
                "does not name a PostgreSQL, but REDIS_URL is set: the two servers go together, and without "
                "them there is one process",
            )
        if self.is_on_servers and not has_public_url:
            raise BadSetting(
                "PUBLIC_URL",
                "is not set: all processes have to name the same address, whoever performs a run",
            )

        if self.engine == BULLMQ and not self.is_on_servers:
            raise BadSetting(
                "ENGINE",
                "is bullmq, which needs the two servers: set DATABASE_URL to a PostgreSQL, and REDIS_URL",
            )

    def _check_exposure(self) -> None:
        if not is_loopback(self.host) and not self.trust_network:
            raise BadSetting(
                "HOST",
                f"is {self.host}, which other machines can reach, and there are no accounts yet: whoever "
                "reaches the app may do everything. Set TRUST_NETWORK=1 if everyone on that network may.",
            )

    def _check_stays_here(self) -> None:
        """Without `PUBLIC_URL`, clone URLs and manifests name localhost and the port, whoever reads them."""
        if not is_loopback(self.host):
            raise BadSetting(
                "PUBLIC_URL",
                f"is not set, but HOST is {self.host}: clone URLs and manifests need an address that others "
                f"reach, such as http://projects.example.com:{self.port}",
            )
        if self.port == 0:
            raise BadSetting(
                "PORT", "is 0, but PUBLIC_URL is not set: clone URLs and manifests need a port that stays"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _text(_name: str, text: str) -> str:
    return text


def _whole(low: int, high: int) -> Callable[[str, str], int]:
    def parse(name: str, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise BadSetting(name, f"is {text!r}; it takes a whole number from {low} to {high}")
        return int(text)

    return parse


def _flag(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise BadSetting(name, f"is {text!r}; it takes 1 or 0")
    return text == "1"


def _engine(name: str, text: str) -> str:
    if text.lower() not in (INLINE, BULLMQ):
        raise BadSetting(name, f"is {text!r}; it takes {INLINE} or {BULLMQ}")
    return text.lower()


def _level(name: str, text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise BadSetting(name, f"is {text!r}; it takes DEBUG, INFO, WARNING or ERROR")
    return text.upper()


def _url(name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port above 65535
        is_address = False
    if not is_address or parts.query or parts.fragment:
        raise BadSetting(name, f"is {text!r}; it takes an address such as https://projects.example.com")
    if parts.path.strip("/"):
        raise BadSetting(name, f"is {text!r}; the app is served at the root of a host, without a path")
    return text.rstrip("/")


def _origins(name: str, text: str) -> tuple[str, ...]:
    return tuple(_url(name, origin) for origin in text.split())


def _database_url(name: str, text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme in ("postgresql", "postgres") and urlsplit(text).hostname:
        if unknown := sorted(dict(parse_qsl(urlsplit(text).query)).keys() - _POSTGRESQL_PARAMETERS):
            raise BadSetting(name, f"has the parameter {unknown[0]}; it takes sslmode and sslrootcert")
        return f"postgresql://{rest}"
    if not text.startswith("sqlite:///"):
        raise BadSetting(
            name,
            "is neither sqlite:///path/to/projects.db nor postgresql://user:password@host:5432/database",
        )
    if "#" in text or "?" in text:
        raise BadSetting(name, "holds a # or a ?, which end a path in an address: write %23 and %3F")
    return text


def _redis_url(name: str, text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise BadSetting(name, "is no address such as redis://user:password@host:6379/0")
    return text


def _path(_name: str, text: str) -> Path:
    return Path(text).expanduser()


_PARSERS: dict[str, Callable[[str, str], object]] = {
    "host": _text,
    "port": _whole(0, 65535),
    "public_url": _url,
    "data_dir": _path,
    "database_url": _database_url,
    "database_pool_size": _whole(2, 1000),
    "redis_url": _redis_url,
    "lease_s": _whole(2, 300),
    "shutdown_grace_s": _whole(0, 3600),
    "engine": _engine,
    "log_level": _level,
    "max_concurrent_runs": _whole(1, 1000),
    "journal_retention_days": _whole(1, 3650),
    "trust_network": _flag,
    "embed_origins": _origins,
    "frames_per_second": _whole(0, 1000),
    "compress_frames": _flag,
}
