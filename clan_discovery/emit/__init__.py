"""Write a resolution as text. Pure, sorted, byte-stable: the same resolution gives the same bytes."""
