"""Cache, events, queue, mail and log: interface, in-memory and real implementation side by side."""
