"""What the host decides between two steps."""
