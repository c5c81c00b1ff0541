"""Side-by-side measurements of asyncnet and its peers: `python -m benchmarks`, explained in README.md."""
