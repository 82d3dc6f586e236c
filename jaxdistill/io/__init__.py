"""What a run leaves on disk: distilled sets, run folders, checkpoints, metrics. Nothing here is ever pickled."""
