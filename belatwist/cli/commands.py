"""The commands and their options.

Each command's work is in a module of its own. The command imports it when it runs, so that ``bela
status`` does not wait for the imports of ``bela once``.
"""
# ruff: noqa: PLC0415 - late imports are the point of this module, see above

import os
import sys
from pathlib import Path

import click

from belatwist import __version__
from belatwist.cli import options, output
from belatwist.cli.exit import BelaGroup, NagiosCheck
from belatwist.errors import BelaError
from belatwist.text import escape


@click.group(
    cls=BelaGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="docs/cli.md has examples. The agent itself is started by: twistd bela",
)
@click.version_option(__version__, prog_name="belatwist", message="%(prog)s %(version)s")
def bela() -> None:
    """Examine a belatwist metrics agent."""


@bela.command()
@click.argument("file", default=options.DEFAULT_PATH)
def check(file: str) -> None:
    """Would the agent start with the configuration FILE?

    Prints what the agent itself would report, and writes nothing. Run it as the service's user,
    whose permissions count. Exit status: 0 if the agent would start, 1 if it would not.
    """
    from belatwist.cli.check import check as run

    for line in run(file):
        click.echo(escape(line))


@bela.command()
@options.config
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "prometheus"]),
    default="table",
    show_default=True,
    help="Format of the samples.",
)
def once(config: str | None, form: str) -> None:
    """Run every collector, and print what the agent would store.

    Collectors that compare two readings run twice, a second apart. The command stores nothing. Exit
    status: 1 when a collector failed, or its source is hidden; 0 when its source is absent.
    """
    from belatwist.cli import load_config
    from belatwist.cli import once as run
    from belatwist.clock.sources import wall_ms

    loaded = load_config.read(config, output.notify)
    with run.warnings_shown():
        collected = run.collect(run.enabled_sources(loaded), wall_ms, output.wait)
    for name, why in collected.failures.items():
        output.notify(f"collector {name}: {why}")
    click.echo("\n".join(run.FORMATS[form](collected.samples)))
    if form == "table" and (notes := collected.notes()):
        click.echo("\n".join(["", *map(escape, notes)]))
    sys.exit(1 if collected.failures else 0)


@bela.command(cls=NagiosCheck)
@options.config
@click.option(
    "--url", type=options.Url(), help="Address of the service, instead of the configured one."
)
@click.option("--json", "as_json", is_flag=True, help="Print the health document unchanged.")
@click.option(
    "--timeout",
    type=options.Seconds(0.1, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Maximum time to wait for the answer.",
)
def status(*, config: str | None, url: str | None, as_json: bool, timeout: float) -> None:
    """Ask the running service for its health.

    The first line begins with OK, DEGRADED or ERROR. Exit status, as for Nagios: 0 ok, 1 degraded,
    2 error or no answer, 3 no verdict.
    """
    from belatwist.cli import status as run

    login = None
    if url is None:
        from belatwist.cli import load_config
        from belatwist.config import read_logins

        health = load_config.read(config, output.notify).health
        if not health.enabled:
            raise BelaError("health.enabled is false, so the service does not answer; see its log")
        url = run.address(health.host, health.port, health.path)
        if health.basic_auth_file is not None:
            login = read_logins(health.basic_auth_file)[0]
    try:
        body, document = run.fetch(url, timeout, login)
    except run.UnreachableError as error:
        click.echo(f"ERROR - {escape(str(error))}", err=as_json)
        sys.exit(run.ERROR)
    if as_json:
        click.echo(escape(body.decode("utf-8", "replace"), keep="\r\n\t"))
    else:
        from belatwist.cli.report import Report

        colour = False if os.environ.get("NO_COLOR") else None
        click.echo("\n".join(Report(document).lines()), color=colour)
    sys.exit(run.STATUS[document["status"]])


@bela.command()
@options.database
@options.metric
@click.option(
    "--lines",
    "-n",
    "count",
    type=click.IntRange(0, 100_000),
    default=20,
    show_default=True,
    metavar="COUNT",
    help="Number of the last samples to print first.",
)
@click.option(
    "--interval",
    type=options.Seconds(0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to read the database.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def tail(
    *,
    config: str | None,
    database: str | None,
    metric: str | None,
    count: int,
    interval: float,
    as_json: bool,
) -> None:
    """Print new samples of the database, until Ctrl-C.

    Each sample is a line: local time, name, tags, value, and its state, which is pending, uploaded
    or rejected (local for texts). The command only reads, and does not delay the agent.
    """
    from belatwist.cli.tail import pattern
    from belatwist.cli.tail import tail as run
    from belatwist.clock.sources import wall_ms

    run(
        options.find(config, database),
        wanted=pattern(metric),
        count=count,
        interval=interval,
        as_json=as_json,
        wall_ms=wall_ms,
    )


@bela.command()
@options.database
@options.metric
@click.option("--since", type=options.Moment(), help="Start: 2h (ago) or 2026-01-31T12:00:00Z.")
@click.option("--until", type=options.Moment(), help="End.  [default: the newest sample]")
@click.option("--all", "everything", is_flag=True, help="Start with the oldest sample.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="jsonl: for VictoriaMetrics' import; csv: for a spreadsheet.",
)
@click.option("--output", "-o", "to", metavar="FILE", help="File to write.  [default: stdout]")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def export(
    *,
    config: str | None,
    database: str | None,
    metric: str | None,
    since: int | None,
    until: int | None,
    everything: bool,
    form: str,
    to: str | None,
    force: bool,
) -> None:
    """Copy samples out of the database.

    The agent may run or not, since the command only reads the database. It prints the number of
    samples on stderr.
    """
    from belatwist.cli.database import MAX_KEY
    from belatwist.cli.export import Span
    from belatwist.cli.export import export as run
    from belatwist.cli.tail import pattern
    from belatwist.store import MIN_KEY

    if everything == (since is not None):
        raise click.UsageError("Give either --since or --all.")
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until must be later than --since.")
    run(
        options.find(config, database),
        Span(
            MIN_KEY if since is None else (since, 0), MAX_KEY if until is None else (until + 1, 0)
        ),
        form=form,
        wanted=pattern(metric),
        to=Path(to) if to else None,
        force=force,
    )


@bela.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the code with which a shell completes bela's commands.

    For bash: eval "$(bela completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows the shells that are offered
    click.echo(kind(bela, {}, "bela", "_BELA_COMPLETE").source())
