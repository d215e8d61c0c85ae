"""Mixed traffic for a long time, from clients that behave and clients that do not, and what it leaves behind."""
