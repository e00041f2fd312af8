"""How kernel text is read: the rooted reader, and what the parsers of several sources share.

A source's parser stands in its module of :mod:`belatwist.collectors`. It takes the bytes of one
file and returns values, or raises :class:`~belatwist.errors.ParseError` and nothing else.

The kernel ends every line with a newline. A last line without one may have lost digits and is never
used. In a table (one core, one disk, one interface a line) a line that does not read as documented
is left out and named in the result's ``skipped``; the others are kept.
"""
