"""`python -m pintpot.cli`: the same command, where the script is not on the path."""

from pintpot.cli import main

main()
