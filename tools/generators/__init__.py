"""What writes modules and models, finished: `kit module new` and `remove`, `kit model new`."""
