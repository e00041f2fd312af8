"""``bela``: the operator's command."""

from belatwist.cli.commands import bela


def main() -> None:
    """Run the command line."""
    bela(prog_name="bela")
