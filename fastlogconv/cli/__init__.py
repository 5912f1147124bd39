"""What the subcommands of `fastlogconv.__main__` do, where they need more than the package itself does."""
