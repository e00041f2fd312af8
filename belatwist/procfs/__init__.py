"""Kernel text to frozen values: one pure parser a source, and the reader that fetches the text.

A parser takes the bytes of one file and returns values or raises
:class:`~belatwist.errors.ParseError`, nothing else. The kernel ends every line with a newline, so
a last line without one may have lost digits and is never used. In a table (one core, one disk, one
interface a line) a line that does not read as documented is left out and named in the result's
``skipped``; the others are kept.
"""
