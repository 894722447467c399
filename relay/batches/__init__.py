"""Files and batches: requests that are answered while nobody waits, see docs/jobs.md."""
