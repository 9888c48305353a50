"""The commands, one a module. A module imports what it needs when its command runs: `--help` must be quick."""
