"""The command line: `initializer serve` and `initializer doctor`."""

import os
from typing import Annotated

import typer

from initializer.checks import CheckFailed, examine
from initializer.logs import configure_logging
from initializer.settings import BadSetting, Settings
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
    try:
        settings = Settings.from_environ(os.environ)
        configure_logging(settings.log_level)
        serve(settings, workers=workers)
    except (BadSetting, CheckFailed) as fault:
        typer.echo(f"Cannot start: {fault}", err=True)
        raise typer.Exit(1) from None


@cli.command()
def doctor() -> None:
    """Say what this machine has and what is missing, before a start."""
    findings = examine(os.environ)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.is_ok else 'FAIL'} {finding.sentence}")
    raise typer.Exit(0 if all(finding.is_ok for finding in findings) else 1)


def main() -> None:
    """The entry point of the `initializer` program."""
    cli()
