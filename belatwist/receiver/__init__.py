"""The small receiver for quick local testing: it takes what a VictoriaMetrics takes, but strictly.

VictoriaMetrics answers 204 also to lines that it drops; this receiver says what is wrong with them.
:mod:`~belatwist.receiver.unpack`, :mod:`~belatwist.receiver.parse` and
:mod:`~belatwist.receiver.memory` are pure. :mod:`~belatwist.receiver.app` serves HTTP and must be
imported late, because Klein installs the reactor.
"""
