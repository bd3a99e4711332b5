"""What a segment of a chain takes: what it can keep, what it computes again for that, and the bytes of its two parts.

A choice says which of a segment's own buffers are kept from the forward part, which are computed anew for each read
instead of being held between them, and whether gradients are made as early as they can. Choices are found by flips of
one of these at a time; what nothing beats is an option for the programme over the chain (`passes.chain`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .recompute import on_demand
from .segments import Chain, Segment
from .tasks import Tasks

EVALUATIONS = 1200
WORK = 120_000
"""So many choices are tried for each kind of segment, or as many as run so many tasks."""


@dataclass(frozen=True)
class Choice:
    """How a segment is run: buffers `kept` from the forward part, exits among them where the backward part is to find
    them; those computed `anew` for each read; and whether gradients are made as `early` as they can."""

    kept: frozenset[int]
    anew: frozenset[int] = frozenset()
    early: bool = False


@dataclass(frozen=True)
class Sizes:
    """Bytes that are held from a segment's forward part to its backward part, and the most bytes alive in either, what
    is held included."""

    held: int
    forward_peak: int
    backward_peak: int


@dataclass(frozen=True)
class Option:
    """A choice, its buffers as places in the segment's list of them, the flops that run again, and what it takes: the
    entries counted as long as the segment itself needs them (`inside`), or not at all (`outside`). `exits`: exits are
    held to its backward part.

    What is `again` has no forward part: the segment stands at the end of a stretch that runs again, where its exits are
    needed no more, and of its forward part only what the backward part reads runs, and when that reads it.
    """

    choice: Choice
    again: bool
    exits: bool
    flops: int
    inside: Sizes
    outside: Sizes

    def beats(self, other: Option) -> bool:
        """Is it as good in flops, bytes held and both peaks?"""
        ours, theirs = self.inside, other.inside
        return (self.exits <= other.exits and self.flops <= other.flops and ours.held <= theirs.held
                and ours.forward_peak <= theirs.forward_peak and ours.backward_peak <= theirs.backward_peak)


class Stage:
    """A segment's numbers: its options, and what it costs to run it forward alone."""

    def __init__(self, chain: Chain, at: int) -> None:
        self.chain, self.at = chain, at
        self.tasks: Tasks = chain.tasks
        self.segment: Segment = chain.segments[at]
        self.buffers = [b for t in self.segment.forward for b in self.tasks.writes[t]]
        self.own = [b for b in self.buffers if b not in chain.shared and (
            b not in self.segment.exits or any(r in self.mine for r in self.tasks.readers[b]))]
        self.place = {b: i for i, b in enumerate(self.buffers)}

    @cached_property
    def flops(self) -> int:
        """Of the forward part."""
        return sum(self.tasks.flops[t] for t in self.segment.forward)

    @cached_property
    def exit_bytes(self) -> int:
        """Of all exits."""
        return sum(self.chain.bytes[b] for b in self.segment.exits)

    @cached_property
    def entry_bytes(self) -> int:
        """Of all entries."""
        return sum(self.chain.bytes[b] for b in self.segment.entries)

    @cached_property
    def gradients(self) -> int:
        """Bytes that stay once the backward part is done."""
        return sum(self.chain.bytes[b] for t in self.segment.backward for b in self.tasks.writes[t]
                   if b in self.chain.sticky)

    @cached_property
    def alone(self) -> int:
        """Peak of the forward part when nothing is kept but the exits."""
        return _peak(self.chain, self.forward_again, (), self.segment.exits)

    @cached_property
    def passing(self) -> int:
        """Peak of the forward part when the entries are given up as well, which are counted."""
        return _peak(self.chain, self.forward_again, self.segment.entries, self.segment.exits)

    @cached_property
    def forward_again(self) -> list[int]:
        """The forward part without what is there from the first time."""
        shared = self.chain.shared
        return [t for t in self.segment.forward if not all(b in shared for b in self.tasks.writes[t])]

    @cached_property
    def early(self) -> list[int]:
        """The backward part with each gradient as soon as what it reads is there."""
        tasks, sticky = self.tasks, self.chain.sticky
        made_at = {b: i for i, t in enumerate(self.segment.backward) for b in tasks.writes[t]}

        def key(entry: tuple[int, int]) -> tuple[int, int]:
            i, t = entry
            if not all(b in sticky for b in tasks.writes[t]):
                return i, 0
            return max((made_at[b] for b in tasks.reads[t] if b in made_at), default=-1), 1

        return [t for _, t in sorted(enumerate(self.segment.backward), key=key)]

    def backward(self, choice: Choice) -> list[int]:
        """The backward part with what it computes again."""
        given_up = set(self.own).difference(choice.kept)
        base = self.early if choice.early else self.segment.backward
        return on_demand(self.tasks, base, lambda b: b not in given_up, choice.anew)

    def run(self, option: Option) -> list[int]:
        """The backward part by an option of this kind of segment."""
        kept, anew = (frozenset(self.buffers[i] for i in places) for places in (option.choice.kept, option.choice.anew))
        return self.backward(Choice(kept, anew, option.choice.early))

    def _option(self, choice: Choice, again: bool) -> Option:
        """The numbers of a choice of the segment's own buffers."""
        order = self.backward(choice)
        flops = sum(self.tasks.flops[t] for t in order) - sum(self.tasks.flops[t] for t in self.segment.backward)
        sizes = self._sizes(choice, again, order, self.segment.entries)
        exits = not choice.kept.isdisjoint(self.segment.exits)
        return Option(choice, again, exits, flops, sizes, sizes)

    def _finished(self, option: Option) -> Option:
        """With all its numbers, and its buffers as places."""
        choice, again = option.choice, option.again
        kept, anew = (frozenset(self.place[b] for b in buffers) for buffers in (choice.kept, choice.anew))
        outside = self._sizes(choice, again, self.backward(choice), ())
        return replace(option, choice=Choice(kept, anew, choice.early), outside=outside)

    def _sizes(self, choice: Choice, again: bool, order: Sequence[int], entries: Collection[int]) -> Sizes:
        """What a choice takes, with these entries counted."""
        chain = self.chain
        read = {b for t in order for b in self.tasks.reads[t]}
        held = {*choice.kept, *(b for b in entries if b in read)}
        if not choice.kept.isdisjoint(self.segment.exits):
            held.update(self.segment.exits)  # all are entries of the next segment, which does not count them then
        incoming, passing = self.cotangents
        start = [*held, *incoming]
        backward = _peak(chain, order, start, chain.sticky | passing | self.outgoing)
        forward = 0 if again else _peak(chain, self.forward_again, entries, {*held, *self.segment.exits})
        return Sizes(sum(chain.bytes[b] for b in held), forward, backward)

    @cached_property
    def cotangents(self) -> tuple[list[int], frozenset[int]]:
        """Backward buffers that are there when the backward part begins, and those that earlier segments read too."""
        tasks, chain = self.tasks, self.chain
        incoming: list[int] = []
        passing = set()
        below = self.below
        for later in chain.segments[self.at + 1:]:
            for t in later.backward:
                for b in tasks.writes[t]:
                    if b in chain.sticky:
                        continue
                    readers = tasks.readers[b]
                    if any(r in below or r in self.mine for r in readers):
                        incoming.append(b)
                        if any(r in below for r in readers):
                            passing.add(b)
        return incoming, frozenset(passing)

    @cached_property
    def outgoing(self) -> frozenset[int]:
        """Buffers of the backward part that earlier segments read."""
        return frozenset(b for t in self.segment.backward for b in self.tasks.writes[t]
                         if any(r in self.below for r in self.tasks.readers[b]))

    @cached_property
    def below(self) -> frozenset[int]:
        return frozenset(t for s in self.chain.segments[:self.at] for t in s.backward)

    @cached_property
    def mine(self) -> frozenset[int]:
        return frozenset(self.segment.backward)

    def options(self) -> list[Option]:
        """Those that no other beats, after a forward part of its own."""
        read = frozenset(b for t in self.segment.backward for b in self.tasks.reads[t]).intersection(self.own)
        return self._explored((Choice(read), Choice(frozenset())), self._flips, again=False)

    def again(self) -> list[Option]:
        """Those of a segment at the end of a stretch that runs again, in which nothing is kept."""
        return self._explored((Choice(frozenset()),), self._anew, again=True)

    def _flips(self, choice: Choice) -> Iterable[Choice]:
        for b in self.own:
            yield Choice(choice.kept ^ {b}, choice.anew - {b}, choice.early)
        yield from self._anew(choice)

    def _anew(self, choice: Choice) -> Iterable[Choice]:
        """One buffer more that is computed for each read, or one less; gradients early, or as they stand."""
        for b in self.own:
            if b not in choice.kept and len(self.tasks.readers[b]) > 1:
                yield Choice(choice.kept, choice.anew ^ {b}, choice.early)
        yield Choice(choice.kept, choice.anew, not choice.early)

    def _explored(self, starts: Sequence[Choice], flips: Callable[[Choice], Iterable[Choice]],
                  again: bool) -> list[Option]:
        """What nothing beats among the starts and what comes of flips of such as are not beaten themselves."""
        most = max(2, min(EVALUATIONS, WORK // (len(self.segment.forward) + len(self.segment.backward) + 1)))
        tried: set[Choice] = set()
        front: dict[Choice, Option] = {}
        queue: list[Choice] = []

        def attempt(choice: Choice) -> None:
            if choice in tried or len(tried) >= most:
                return
            tried.add(choice)
            option = self._option(choice, again)
            if any(other.beats(option) for other in front.values()):
                return
            for beaten in [known for known, other in front.items() if option.beats(other)]:
                del front[beaten]
            front[choice] = option
            queue.append(choice)

        for start in starts:
            attempt(start)
        while queue:
            choice = queue.pop(0)
            if choice in front:
                for flipped in flips(choice):
                    attempt(flipped)
        return [self._finished(option) for option in sorted(
            front.values(), key=lambda o: (o.flops, o.inside.held, o.inside.backward_peak))]


def _peak(chain: Chain, order: Sequence[int], start: Collection[int], stay: Collection[int]) -> int:
    """Most bytes alive in a stretch: `start` are there before, `stay` there after, what else it reads is outside."""
    tasks, size = chain.tasks, chain.bytes
    last: dict[int, int] = {}
    for step, task in enumerate(order):
        for b in tasks.reads[task]:
            last[b] = step
    alive = sum(size[b] for b in start)
    there = set(start)
    peak = alive
    for step, task in enumerate(order):
        new = [b for b in tasks.writes[task] if b not in there]
        alive += sum(size[b] for b in new)
        there.update(new)
        dying = [b for b in tasks.reads[task] if b in there and last[b] == step and b not in stay]
        handed = set()
        for r, w, at in tasks.hands_over[task]:
            if r in dying and w in new and (w, at) not in handed:
                handed.add((w, at))
                dying.remove(r)
                there.remove(r)
                alive -= size[r]
        peak = max(peak, alive + tasks.workspace[task])
        for b in (*dying, *(b for b in new if b not in last and b not in stay)):
            alive -= size[b]
            there.remove(b)
    return peak
