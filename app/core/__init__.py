"""What every module stands on: configuration, database, HTTP contract and services. Names no module."""
