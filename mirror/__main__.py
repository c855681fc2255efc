"""Entry point of `python -m mirror`."""

from mirror.cli.app import main

if __name__ == "__main__":
    main()
