"""Notices to people: what is said, by which way, and what became of it."""
