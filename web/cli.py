"""The command line: `initializer serve`, `worker`, `doctor` and `bench`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from initializer.checks import CheckFailed, examine
from initializer.logs import configure_logging
from initializer.settings import BadSetting, Settings
from initializer.worker import work
from web.bench import Load, bench
from web.serve import serve

__all__ = ["main"]

cli = typer.Typer(
    help="Creates projects for real and shows every step live.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@cli.command("serve")
def serve_command(
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="How many processes share the port, on PostgreSQL and Redis.")
    ] = 1,
) -> None:
    """Serve the app. Settings are environment variables; none is needed."""
    with _starting():
        serve(_settings(), workers=workers)


@cli.command()
def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Runs at once; as shipped, MAX_CONCURRENT_RUNS.")
    ] = None,
) -> None:
    """Perform the runs that wait in the queue of BullMQ (ENGINE=bullmq), and serve nothing."""
    with _starting():
        settings = _settings()
        work(settings, concurrency=concurrency or settings.max_concurrent_runs)


@cli.command()
def doctor() -> None:
    """Say what this machine has and what is missing, before a start."""
    findings = examine(os.environ)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.is_ok else 'FAIL'} {finding.sentence}")
    raise typer.Exit(0 if all(finding.is_ok for finding in findings) else 1)


@cli.command("bench")
def bench_command(
    viewers: Annotated[int, typer.Option(min=1, max=5000, help="Viewers of each project.")] = 200,
    projects: Annotated[int, typer.Option(min=1, max=500, help="Projects that run at once.")] = 1,
    rate: Annotated[int, typer.Option(min=1, max=10_000, help="Reports a second of each project.")] = 30,
    seconds: Annotated[int, typer.Option(min=1, max=600, help="How long.")] = 10,
) -> None:
    """Measure on this machine how fast runs reach their viewers; a folder and a port of its own are used."""
    load = Load(projects=projects, viewers=viewers, rate=rate, seconds=seconds)
    raise typer.Exit(0 if bench(load, Console()) else 1)


@contextmanager
def _starting() -> Iterator[None]:
    """Say in one sentence why the program cannot start."""
    try:
        yield
    except (BadSetting, CheckFailed) as fault:
        typer.echo(f"Cannot start: {fault}", err=True)
        raise typer.Exit(1) from None


def _settings() -> Settings:
    settings = Settings.from_environ(os.environ)
    configure_logging(settings.log_level)
    return settings


def main() -> None:
    """The entry point of the `initializer` program."""
    cli()
