"""Every statement, as a plain function of a cursor; and the schema that they are for."""
