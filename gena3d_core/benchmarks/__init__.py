"""Benchmarks of the generators: measured time and memory beside what the counted operations would take at best."""
