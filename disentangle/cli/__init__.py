"""Parsers, options and messages of the commands."""
