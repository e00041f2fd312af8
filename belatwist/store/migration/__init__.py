"""From the database of an earlier version to one of the present: the steps, and how they run."""
