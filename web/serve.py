"""Serves the app: checks the machine, binds, and hands over to uvicorn."""

import gc
import multiprocessing
import os
import resource
import signal
import socket
import sys

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from initializer.checks import (
    CheckFailed,
    bind,
    check_database,
    check_engine,
    check_git,
    check_servers,
    hold_data_folder,
)
from initializer.logs import configure_logging
from initializer.process_groups import end_with_parent
from initializer.running.recovery import takeover_limit_s
from initializer.settings import Settings, is_loopback
from web.app import create_app
from web.limits import max_connections
from web.shared_frames import SharedFrames

__all__ = ["serve", "worker_app"]

SHUTDOWN_LIMIT_S = 10

COLLECTED_OBJECTS = 20_000
"""How many objects more than before make the collector look: some megabytes."""

log = structlog.get_logger()


def serve(settings: Settings, *, workers: int = 1) -> None:
    """Serve until a signal ends it, with as many processes on one port.

    Raises `CheckFailed` where the machine is not as it must be.
    """
    if workers > 1 and not settings.is_on_servers:
        raise CheckFailed(
            "--workers needs PostgreSQL and Redis (DATABASE_URL, REDIS_URL); without them one process works"
        )
    check_git()
    check_engine(settings)
    _raise_file_limit()
    with (
        hold_data_folder(settings.data_dir, is_shared=settings.is_on_servers),
        bind(settings) as bound,
    ):
        if settings.is_on_servers:
            for warning in check_servers(settings):
                log.warning("unwise configuration", problem=warning)
        else:
            check_database(settings.database_url)
        _greet(settings, bound)
        config = uvicorn.Config(
            create_app(settings) if workers == 1 else "web.serve:worker_app",
            factory=workers > 1,
            workers=workers,
            log_config=None,
            access_log=False,
            server_header=False,
            ws=SharedFrames,
            ws_per_message_deflate=settings.compress_frames,
            ws_max_size=64 * 1024,  # viewers have nothing to say
            limit_concurrency=max_connections(),
            timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
        )
        if workers > 1:
            Multiprocess(config, [bound]).run()
        else:
            _calm_collector()
            # Once all is closed, uvicorn raises the signal again, to end the process. Python's own handler,
            # which SIGTERM has not, would have it wait then for a step that was left behind, or its thread.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            uvicorn.Server(config).run(sockets=[bound])


def worker_app() -> Starlette:
    """The app of one of several workers, which ends when the process that looks after it is gone."""
    settings = Settings.from_environ(os.environ)
    configure_logging(settings.log_level)
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with_parent(parent.pid, signal.SIGTERM)
    app = create_app(settings)
    _calm_collector()
    return app


def _raise_file_limit() -> None:
    """Take all the open files that the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _calm_collector() -> None:
    """Look for cycles of garbage more seldom, and never among what every process keeps.

    Nearly all that a busy process makes is freed without the collector, which took a quarter of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_OBJECTS, 20, 20)


def _greet(settings: Settings, bound: socket.socket) -> None:
    port = bound.getsockname()[1]
    host = "localhost" if is_loopback(settings.host) else settings.host
    sys.stdout.write(f"Serving on http://{host}:{port}. {_promise(settings)}\n")
    sys.stdout.flush()


def _promise(settings: Settings) -> str:
    limit_s = takeover_limit_s(settings.lease_s, has_workers=settings.has_workers)
    if settings.has_workers:
        return (
            "Ctrl-C stops; runs are performed by `initializer worker`, "
            f"after a crash of one by another within {limit_s:g} s."
        )
    if settings.is_on_servers:
        return f"Ctrl-C stops; another process goes on with its runs, after a crash within {limit_s:g} s."
    return "Ctrl-C stops; runs go on at the next start."
