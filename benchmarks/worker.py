"""The process behind :func:`benchmarks.harness.in_worker`: runs one function on a reactor."""

import json
import sys
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner

from belatwist.log.output import LogOutput
from belatwist.runtime.process import configure_process


def main(name: str, arguments: str) -> None:
    """Run a coroutine function and print its result as a line of JSON.

    :param name: ``module:function``.
    :param arguments: JSON, ``[[positional], {named}]``; the reactor precedes them.
    """
    module, _, attribute = name.partition(":")
    function = getattr(import_module(module), attribute)
    positional, named = json.loads(arguments)
    # As the service logs: to the same observer, at the same level, the cost included.
    output = LogOutput("info", "json", "/dev/null")
    globalLogBeginner.beginLoggingTo([output], redirectStandardIO=False)

    async def run(reactor: Any) -> None:
        print(json.dumps(await function(reactor, *positional, **named)))

    def begin(reactor: Any) -> "Deferred[None]":
        configure_process(reactor, on_hangup=output.reopen)
        return Deferred.fromCoroutine(run(reactor))

    react(begin)


if __name__ == "__main__":
    main(*sys.argv[1:])
