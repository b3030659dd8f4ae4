"""Model cards: what a network is, what it learned from, and what is not known about it."""

from __future__ import annotations

from pathlib import Path

from models.registry import NetworkContract

_LIMITS = """## Limits

- Not for clinical use, not a medical device. Look at the masks before you believe a number that rests on them.
- {learned} What was measured on real scans that it has not seen is in
  `docs/validation/segmentation.md`; phantom figures say nothing about patients.
- The phantom knows few pathologies. Fractures, fusion, implants, tumours, severe scoliosis and transitional vertebrae
  are where it fails first.
"""


_FROM_PHANTOM = (
    "It has learned from a parametric phantom alone: no patient, no scanner, no radiologist has had a part in it."
)
_FROM_BOTH = "It has learned from a parametric phantom and from the real slices named above, which are T2-weighted."


def card_text(contract: NetworkContract) -> str:
    """Markdown card of a network, made from its contract."""
    licence = "Apache-2.0, code and weights" + (f"; the weights learned from {contract.credit}" * bool(contract.credit))
    return f"""# {contract.name}

Two-dimensional V-Net (Milletari et al. 2016), {contract.levels} levels, {contract.base_channels} base channels, for
{contract.plane} slices at {contract.spacing_mm} mm; intensities normalised by `{contract.normalisation}`.
One sigmoid channel each for {", ".join(contract.classes)}.

| | |
|---|---|
| training data | {contract.training_data} |
| patient data | {contract.credit or "none"} |
| trained on | {contract.trained_on} |
| weights | half precision, sha256 `{contract.weights_sha256}` |
| licence | {licence} |

{_dice_table("held-back phantom subjects", contract.phantom_dice)}
{_dice_table("real slices of the validation patients", contract.annotated_dice)}
{_LIMITS.format(learned=_FROM_BOTH if contract.credit else _FROM_PHANTOM)}"""


def _dice_table(where: str, dice: dict[str, float]) -> str:
    if not dice:
        return ""
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in dice.items())
    return f"| class | Dice on {where} |\n|---|---|\n{rows}\n"


def write_card(folder: Path, contract: NetworkContract) -> None:
    """Write the card beside the weights."""
    (folder / f"{contract.name}.md").write_text(card_text(contract))
