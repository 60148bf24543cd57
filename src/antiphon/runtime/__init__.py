"""What a run or model folder holds, and how it is written so that nothing is lost."""
