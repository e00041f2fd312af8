"""``twistd bela`` and ``twistd bela-receiver``. Strings only: nothing is imported until chosen."""

from twisted.application.service import ServiceMaker

bela = ServiceMaker(
    "belatwist",
    "belatwist.tap",
    "Collect this machine's metrics, keep them in SQLite and upload them to VictoriaMetrics.",
    "bela",
)

bela_receiver = ServiceMaker(
    "belatwist receiver",
    "belatwist.receiver.tap",
    "Receive what bela uploads, check and count it: for quick local testing.",
    "bela-receiver",
)
