"""Speed and memory, each beside a limit measured in the same run: `make bench` (docs/benchmarks.md)."""
