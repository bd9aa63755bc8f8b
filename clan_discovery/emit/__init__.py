"""Resolution in, text out. Pure, sorted, byte-stable: the same resolution gives the same bytes."""
