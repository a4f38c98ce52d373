"""What was recorded: rows, events, names."""
