"""Train the networks: phantom pools made ahead (`pool`), augmentation on the device (`augment`), the loop (`loop`)."""
