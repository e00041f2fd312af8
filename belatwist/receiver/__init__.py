"""The small receiver for local tests: it accepts the requests of VictoriaMetrics, but strictly.

VictoriaMetrics answers 204 also to lines that it drops; this receiver answers with the fault.
:mod:`~belatwist.receiver.unpack`, :mod:`~belatwist.receiver.parse` and
:mod:`~belatwist.receiver.memory` are pure. :mod:`~belatwist.receiver.app` serves HTTP and must be
imported late, because Klein installs the reactor.
"""
