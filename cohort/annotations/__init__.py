"""Masks that people drew: read from their tools, matched to exams, checked, and kept as annotation stores."""
