"""``python -m belatwist.cli``: the ``bela`` command where no script is installed."""

from belatwist.cli import main

main()
