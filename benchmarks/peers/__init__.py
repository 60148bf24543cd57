"""Training speed beside other toolkits. `python -m benchmarks.peers --help` tells how; a file for each toolkit."""
