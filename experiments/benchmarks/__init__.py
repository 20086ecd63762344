"""Timed comparisons with other libraries; each prints a table and writes JSON."""
