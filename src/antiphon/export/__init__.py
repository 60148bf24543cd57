"""From a run folder to a model folder that answers without PyTorch."""
