"""The status page, and its data: the series, their current values and their past."""
