"""`python -m app.cli` is `kit`."""

from app.cli import main

if __name__ == "__main__":
    main()
