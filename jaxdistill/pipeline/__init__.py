"""From a configuration to a finished run folder: prepare, distil, evaluate, report."""
