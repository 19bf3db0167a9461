"""Text, tables and figures."""
