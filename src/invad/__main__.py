"""`python -m invad`: the same as the command `invad`."""

from invad.cli import main

if __name__ == "__main__":
    main()
