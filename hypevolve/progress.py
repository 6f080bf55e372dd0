"""What is seen of a campaign while it runs: a live view on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hypevolve import messages
from hypevolve.console import change, duration, number

LINE_EVERY_S = 3.0
BAR = 32


def progress_line(campaign: messages.Campaign) -> str:
    """``bccd  4/12 done  2 in training  best 0.3124 #3, +0.031 (+11.1 %)  failed 0  lost 0  eta 1 min 20 s``."""
    counts = campaign.counts
    parts = [campaign.name, f"{counts.done}/{counts.planned} done", f"{counts.running + counts.leased} in training"]
    parts += [best_words(campaign), f"failed {counts.failed}", f"lost {counts.lost}"]
    if campaign.eta_s is not None:
        parts.append(f"eta {duration(campaign.eta_s)}")
    return "  ".join(part for part in parts if part)


def best_words(campaign: messages.Campaign) -> str:
    """The best so far against the default, or nothing while there is none."""
    best, default = campaign.best, campaign.default
    if best is None or best.fitness is None:
        return ""
    against = "" if default is None or default.number == best.number else change(best.fitness, default.fitness)
    return f"best {number(best.fitness)} #{best.number}" + (f", {against}" if against else "")


def bar(done: int, planned: int, width: int = BAR) -> str:
    filled = 0 if planned <= 0 else min(width * done // planned, width)
    return "█" * filled + "·" * (width - filled)


def live_lines(campaign: messages.Campaign, workers: Sequence[messages.Worker]) -> list[str]:
    """The live view: three lines that never grow with the number of candidates."""
    counts = campaign.counts
    ended = counts.done + counts.failed + counts.cancelled
    share = 100 * ended // counts.planned if counts.planned else 100
    eta = f"  eta {duration(campaign.eta_s)}" if campaign.eta_s is not None else ""
    first = f"{campaign.name}  {bar(ended, counts.planned)}  {counts.done}/{counts.planned} done  {share} %{eta}"
    words = best_words(campaign) or "no result yet"
    second = f"{words}    {counts.running + counts.leased} in training  failed {counts.failed}  lost {counts.lost}"
    return [first, second, "  ".join(training_words(campaign.name, workers))]


def training_words(name: str, workers: Sequence[messages.Worker]) -> list[str]:
    """``worker-1 #5 40 %`` for each living training of a campaign."""
    found = []
    for worker in sorted(workers, key=lambda worker: worker.name):
        held = [lease for lease in worker.leases if lease.campaign == name and lease.expires_in_s > 0]
        found += [f"{worker.name} #{lease.number} {lease.progress:.0%}".replace("%", " %") for lease in held]
    return found[:8]


class Progress:
    """Shows a campaign on stderr, as a live view inside the context on a terminal; ``say`` may be called at any time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True) if sys.stderr.isatty() else None
        self._said = ""
        self._due = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def live(self) -> bool:
        """Whether the trainings one by one are shown, so that they are worth asking for."""
        return self._live is not None

    def show(self, campaign: messages.Campaign, workers: Sequence[messages.Worker] = ()) -> None:
        if self._live is not None:
            self._live.update(Text("\n".join(live_lines(campaign, workers)), overflow="ellipsis", no_wrap=True), refresh=True)
            return
        line = progress_line(campaign)
        told = line.partition("  eta ")[0]  # an estimate alone is no news
        if told != self._said and self._clock() >= self._due:
            self.say(line)
            self._said, self._due = told, self._clock() + LINE_EVERY_S

    def say(self, text: str) -> None:
        """Something that happened, above the live view."""
        if self._live is not None:
            self._live.console.print(Text(text))
        else:
            print(text, file=sys.stderr, flush=True)
