"""Who gets the next frame, and when: acknowledgements, time-outs, back-pressure. Pure; drawing thread.

A view says ``ready`` and then gets frames one at a time: the next only after the last was acknowledged, and no sooner
than a period after it. What was skipped is never queued, because a frame is the difference between what a view
has and what is. An ack that does not come within ``patience_s`` drops the view until it says anything again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Has = Mapping[tuple[str, ...], object]


@dataclass(slots=True)
class _Link:
    """One view: what it has, the frame it owes an ack for, and when that was sent (seconds of a monotonic clock)."""

    has: Has = field(default_factory=dict)
    unacknowledged: int | None = None
    sent_at: float = float("-inf")


class Stream:
    """The views that listen. Times are seconds of any monotonic clock, passed in."""

    def __init__(self, *, period_s: float = 0.1, patience_s: float = 2.0) -> None:
        self._period_s = period_s
        self._patience_s = patience_s
        self._links: dict[str, _Link] = {}
        self._number = 0

    @property
    def live(self) -> bool:
        """Whether anyone listens."""
        return bool(self._links)

    @property
    def views(self) -> list[str]:
        """Who listens."""
        return list(self._links)

    def ready(self, view: str) -> None:
        """A view starts, or starts again: it has nothing."""
        self._links[view] = _Link()

    def acknowledge(self, view: str, number: int) -> None:
        """A view has drawn frame ``number``. From a view that was dropped this is a new start."""
        link = self._links.get(view)
        if link is None:
            self.ready(view)
        elif link.unacknowledged == number:
            link.unacknowledged = None

    def bye(self, view: str) -> None:
        """A view is gone or hidden."""
        self._links.pop(view, None)

    def expire(self, now: float) -> list[str]:
        """Drop the views that owe an ack for too long; who they were."""
        late = [
            view
            for view, link in self._links.items()
            if link.unacknowledged is not None and now - link.sent_at >= self._patience_s
        ]
        for view in late:
            del self._links[view]
        return late

    def due(self, now: float) -> dict[str, Has]:
        """The views that may get a frame now, and what each has."""
        return {
            view: link.has
            for view, link in self._links.items()
            if link.unacknowledged is None and now - link.sent_at >= self._period_s
        }

    def sent(self, views: list[str], has: Has, now: float) -> int:
        """A frame goes to these views, after which they have ``has``; its number."""
        self._number += 1
        for view in views:
            link = self._links[view]
            link.has, link.unacknowledged, link.sent_at = has, self._number, now
        return self._number

    def wait_s(self, now: float) -> float | None:
        """How long nothing can happen here by itself; ``None`` for ever, as nobody listens."""
        if not self._links:
            return None
        return max(0.0, min(self._next(link) for link in self._links.values()) - now)

    def _next(self, link: _Link) -> float:
        return link.sent_at + (self._period_s if link.unacknowledged is None else self._patience_s)
