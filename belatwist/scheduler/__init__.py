"""When collectors run: their intervals, threads and deadlines, and the hand-over of a tick."""
