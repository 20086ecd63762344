"""One command for an accelerator: what it can do, and what the library makes of it."""
