"""The status page, and the data for it: what there is, what it is now, and how it was."""
