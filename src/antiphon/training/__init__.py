"""From batches of ids to trained weights: the loop, the optimizer, the schedule, what is told and saved."""

import os

# Before torch is loaded: oneDNN keeps every kernel it makes, 1,024 of them by default, and a run with its buckets and
# ending rows has many shapes. Half as many cost little time and bound the memory.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")
