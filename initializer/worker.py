"""The worker process: performs queued runs, and serves nobody."""

import asyncio
import os
import signal
import sys
from typing import NoReturn

import structlog
import uvloop

from initializer.checks import CheckFailed, check_engine, check_git, check_servers, hold_data_folder
from initializer.forges.local import FORGE_FOLDER, LocalForge
from initializer.parts.queue import open_worker
from initializer.running.recovery import takeover_limit_s
from initializer.settings import Settings

__all__ = ["work"]

log = structlog.get_logger()


def work(settings: Settings, *, concurrency: int) -> None:
    """Perform runs until a signal ends it. Raises `CheckFailed` where the machine is not as it must be."""
    if not settings.has_workers:
        raise CheckFailed("ENGINE is inline, so `serve` performs the runs: set ENGINE=bullmq to have workers")
    check_git()
    check_engine(settings)
    with hold_data_folder(settings.data_dir, is_shared=True):
        for warning in check_servers(settings):
            log.warning("unwise configuration", problem=warning)
        uvloop.run(_work(settings, concurrency=concurrency))


async def _work(settings: Settings, *, concurrency: int) -> None:
    asked_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    forge = LocalForge(settings.data_dir / FORGE_FOLDER, settings.public_url)
    async with open_worker(settings, forge, concurrency=concurrency):
        limit_s = takeover_limit_s(settings.lease_s, has_workers=True)
        log.info("worker online", concurrency=concurrency, takeover_limit_s=limit_s)
        await asked_to_end.wait()
        log.info("worker leaves", grace_s=settings.shutdown_grace_s)
    _end_now()


def _end_now() -> NoReturn:
    """End the process, all being closed: its loop would wait for a step left behind, or for its thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
