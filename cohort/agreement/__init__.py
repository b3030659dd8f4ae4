"""Agreement with people: overlap of masks today."""
