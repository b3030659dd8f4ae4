"""The study of automatic against manual masks: its tables and figures."""
