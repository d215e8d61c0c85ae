"""Mixed traffic for a long time, from well-behaved and faulty clients, and a check that no resource grows."""
