"""Simulated residents and devices, and recordings replayed as devices."""
