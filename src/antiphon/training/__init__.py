"""From batches of ids to trained weights: the loop, the optimizer, the schedule, what is told and saved."""
