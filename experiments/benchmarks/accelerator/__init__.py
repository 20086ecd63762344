"""One command that measures an accelerator, and the library on it."""
