"""What a run is told as: diagnosis, report, forensics, command line."""
