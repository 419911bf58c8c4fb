"""What was promised, on disk, and its proof."""
