"""What is computed on the device in one training step."""
