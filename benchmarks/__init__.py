"""What the service costs beside a bare application that does the same: `make bench`, docs/performance.md."""
