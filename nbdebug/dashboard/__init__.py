"""The dashboard: draws what a View says, turns what a person does into Commands. Never imports torch.

``Dashboard`` is what the debugger uses; ``text`` is the same view in plain words; ``blocking_note`` says when the
controls cannot be heard while a cell runs.
"""

from nbdebug.dashboard.dashboard import Dashboard, Sent
from nbdebug.dashboard.fallback import text
from nbdebug.dashboard.routing import blocking_note

__all__ = ["Dashboard", "Sent", "blocking_note", "text"]
