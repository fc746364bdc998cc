"""Masks whose products `benchmarks.masks` times, and their peers."""
