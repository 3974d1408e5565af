"""Generate and remove modules, and generate models: `kit module new`, `kit module remove`, `kit model new`."""
