"""Speed and quality, measured by commands that anyone can rerun. Each prints a table and, last, one line of JSON."""
