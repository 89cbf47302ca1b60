"""jlstm's speed and memory beside those of its peers: `python -m tests.benchmarks --help`."""
