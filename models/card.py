"""Model cards: what a network is, what it learned from, and what is not known about it."""

from __future__ import annotations

from pathlib import Path

from models.registry import NetworkContract

_LIMITS = """## Limits

- Not for clinical use, not a medical device. Look at the masks before you believe a number that rests on them.
- It has learned from a parametric phantom alone: no patient, no scanner, no radiologist has had a part in it. The Dice
  values above are **phantom figures**; what was measured on real scans is in `docs/validation/segmentation.md`.
- The phantom knows few pathologies. Fractures, fusion, implants, tumours, severe scoliosis and transitional vertebrae
  are where it fails first.
"""


def card_text(contract: NetworkContract) -> str:
    """Markdown card of a network, made from its contract."""
    dice = "\n".join(f"| {name} | {value:.3f} |" for name, value in contract.phantom_dice.items())
    return f"""# {contract.name}

Two-dimensional V-Net (Milletari et al. 2016), {contract.levels} levels, {contract.base_channels} base channels, for
{contract.plane} slices at {contract.spacing_mm} mm; intensities normalised by `{contract.normalisation}`.
One sigmoid channel each for {", ".join(contract.classes)}.

| | |
|---|---|
| training data | {contract.training_data} |
| patient data | none |
| trained on | {contract.trained_on} |
| weights | half precision, sha256 `{contract.weights_sha256}` |
| licence | Apache-2.0, code and weights |

| class | Dice on held-back phantom subjects |
|---|---|
{dice}

{_LIMITS}"""


def write_card(folder: Path, contract: NetworkContract) -> None:
    """Write the card beside the weights."""
    (folder / f"{contract.name}.md").write_text(card_text(contract))
