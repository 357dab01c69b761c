"""Changes to a live model that can be undone exactly: activations, freezing, batch norms. Training thread.

First a plan is made, which changes nothing and says what will be done, what is refused and why, and which parameters
an optimizer has to take in; :func:`apply` carries it out at a safe point, :func:`undo` puts the same objects back.
What all changes together made of the tree is a :class:`Structure`, to go with a snapshot: restore it first, then the
snapshot's values. The same plan on the same model gives the same names, order and values; no random number is drawn.
"""

from __future__ import annotations

from nbdebug.training.surgery_activations import Activation, activation_layers, option_mistakes, plan_swap, why_not
from nbdebug.training.surgery_edits import Applied, Change, Originals, Plan, Structure, apply, capture, restore, undo
from nbdebug.training.surgery_freezing import plan_freeze, plan_unfreeze
from nbdebug.training.surgery_norms import plan_insert_norms
from nbdebug.training.surgery_norms_out import plan_remove_norms

__all__ = [
    "Activation",
    "Applied",
    "Change",
    "Originals",
    "Plan",
    "Structure",
    "activation_layers",
    "apply",
    "capture",
    "option_mistakes",
    "plan_freeze",
    "plan_insert_norms",
    "plan_remove_norms",
    "plan_swap",
    "plan_unfreeze",
    "restore",
    "undo",
    "why_not",
]
