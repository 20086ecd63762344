"""The `jaxclf` command and its subcommands."""
