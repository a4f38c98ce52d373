"""What the studies beside this folder share: data, one run, the page."""
