"""Measurements that stand in the documentation: each prints a table and writes JSON with command, commit, seed and machine."""
