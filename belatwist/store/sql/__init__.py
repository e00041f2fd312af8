"""Every statement, as a plain function of a cursor; the schema; what runs in the database's thread."""
