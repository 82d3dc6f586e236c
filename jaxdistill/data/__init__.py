"""Text classification data: tasks, where they come from, tokens, batches. Everything here is numpy, nothing is JAX."""
