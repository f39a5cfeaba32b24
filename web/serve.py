"""Serves the app: checks the machine, binds, and hands over to uvicorn."""

import socket
import sys

import uvicorn

from initializer.checks import bind, check_database, check_git, hold_data_folder
from initializer.settings import Settings, is_loopback
from web.app import create_app

__all__ = ["serve"]

SHUTDOWN_LIMIT_S = 10


def serve(settings: Settings) -> None:
    """Serve until a signal ends it. Raises `CheckFailed` where the machine is not as it must be."""
    check_git()
    with hold_data_folder(settings.data_dir), bind(settings) as bound:
        check_database(settings.database_url)
        _greet(settings, bound)
        config = uvicorn.Config(
            create_app(settings),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="websockets-sansio",
            ws_per_message_deflate=False,  # costs more than it saves on fragments this small
            ws_max_size=64 * 1024,  # viewers have nothing to say
            timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
        )
        uvicorn.Server(config).run(sockets=[bound])


def _greet(settings: Settings, bound: socket.socket) -> None:
    port = bound.getsockname()[1]
    host = "localhost" if is_loopback(settings.host) else settings.host
    sys.stdout.write(f"Serving on http://{host}:{port}. Ctrl-C stops; runs go on at the next start.\n")
    sys.stdout.flush()
