"""`python -m wardround`: the command line where its script is not on the path."""

from wardround.cli.app import main

main()
