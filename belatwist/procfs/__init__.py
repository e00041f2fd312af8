"""Reading kernel text: the rooted reader, and functions that several parsers share.

The parser of a source is in its module of :mod:`belatwist.collectors`. It takes the bytes of a file
and returns values, or raises :class:`~belatwist.errors.ParseError` and nothing else.

The kernel ends every line with a newline. A last line without one may have lost digits and is never
used. In a table (a line for each core, disk or interface) a parser leaves out a line that is not as
documented, and quotes it in the result's ``skipped``. It keeps the other lines.
"""
