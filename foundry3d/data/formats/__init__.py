"""One reader for each kind of file: bytes in, `Raw` geometry out, nothing executed or fetched."""
