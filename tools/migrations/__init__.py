"""Write, read, check and try revisions: the half of migrations that only developers need."""
