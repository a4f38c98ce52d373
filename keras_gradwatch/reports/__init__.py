"""Reports on a run: diagnosis, report, forensics, command line."""
