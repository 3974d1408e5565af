"""What the service costs beside a bare application that does the same, and what jobs cost: docs/performance.md."""
