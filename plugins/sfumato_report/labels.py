"""Names of the classes that items belong to."""

from __future__ import annotations

from torch import Tensor

from sfumato import Contract, visible_text


def classes(label: Tensor | None, contract: Contract) -> tuple[list[str], Tensor | None]:
    """Names of the classes that occur, in order, and for each item the number of its name.

    Scripts write names onto canvases, where nothing shows what a character hides: so that is done
    here. Without labels there are no names, and no numbers.
    """
    if label is None:
        return [], None
    found, numbers = label.unique(return_inverse=True)
    named = contract.classes
    names = [named[i] if 0 <= i < len(named) else str(i) for i in found.tolist()]
    return [visible_text(name) for name in names], numbers
