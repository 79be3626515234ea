"""Point clouds: built in, from archives, from files."""
