"""Networks, their weights, the phantom that teaches them, and the musculoskeletal base models."""
