"""Foundation of all modules: configuration, database, HTTP contract and services. Names no module."""
