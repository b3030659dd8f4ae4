"""Agreement with people, or of two versions: overlap and surfaces of masks, Bland-Altman limits, correlations."""
