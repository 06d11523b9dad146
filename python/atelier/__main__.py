"""`python -m atelier` is the command `atelier`."""

from atelier_program import main

main()
