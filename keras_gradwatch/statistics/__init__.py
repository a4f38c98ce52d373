"""Statistics of gradients, weights and updates, on the device."""
