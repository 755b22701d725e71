"""Breadth first through every state of a world: the first violation that is met has the shortest way to it.

Invariant 6 is checked on every state as well: each has one step that it takes when no more faults happen (`Move.fault`), and these
must lead to rest.  As every state that can be met on any continuation without faults is itself checked, no such continuation can
ever come to where it can't be resolved any more.
"""

from __future__ import annotations

import resource
import time
from array import array
from dataclasses import dataclass, field
from itertools import pairwise

from model.describe import describe
from model.invariants import excused, unresolved, violation
from model.world import Move, Scenario, State, World


@dataclass
class Result:
    """What a search has found."""

    world: World
    states: int = 0
    steps: int = 0
    seconds: float = 0.0
    """Of processor time."""
    violation: str = ""
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found = "\n".join([self.violation, *self.trace]) if self.violation else "no violation"
        return f"{self.states} states, {self.steps} steps, {self.seconds:.1f} s, {memory} MB: {found}"


def search(scenario: Scenario, *, liveness: bool = True, limit: int = 20_000_000) -> Result:
    """Every state that the scenario can reach."""
    started = time.process_time()
    result = _Search(World(scenario), liveness, limit).run()
    result.seconds = time.process_time() - started
    return result


class _Search:
    def __init__(self, world: World, liveness: bool, limit: int) -> None:
        self.world, self.liveness, self.limit = world, liveness, limit
        self.states: list[State] = []
        self.number: dict[State, int] = {}
        self.judged: dict[State, str] = {}
        self.parents = array("q")
        self.progress = array("q")
        self.result = Result(world)

    def run(self) -> Result:
        """To the first violation, or to the end."""
        for state in self.world.initial():
            self._reach(state, -1)
        at = 0
        while at < len(self.states) and not self.result.violation:
            self._expand(at)
            at += 1
            assert len(self.states) <= self.limit, f"more than {self.limit} states"
        if self.liveness and not self.result.violation:
            self._all_resolve()
        self.result.states = len(self.states)
        return self.result

    def _reach(self, state: State, parent: int) -> int:
        found = self.number.get(state)
        if found is not None:
            return found
        number = self.number[state] = len(self.states)
        self.states.append(state)
        self.parents.append(parent)
        if not self.result.violation and (wrong := self._violation(state)):
            self.result.violation = wrong
            self.result.trace = self._trace(number)
        return number

    def _violation(self, state: State) -> str:
        """It depends on the servers, on what was told, and on whether anybody is still at work."""
        world = self.world
        key = (*state[world.first_server : world.at_late], state[world.at_events], world.quiet(state))
        found = self.judged.get(key)
        if found is None:
            found = self.judged[key] = violation(world, state)
        return found

    def _expand(self, at: int) -> None:
        state, progress = self.states[at], -1
        for move, after in self.world.moves(state):
            self.result.steps += 1
            number = self._reach(after, at)
            if progress < 0 and not move.fault and number != at:
                progress = number
        self.progress.append(progress)

    def _all_resolve(self) -> None:
        """Follow the fault-free steps from every state; each is passed once."""
        done = bytearray(len(self.states))
        for start in range(len(self.states)):
            way, at = [], start
            while not done[at]:
                done[at] = 1
                way.append(at)
                if self.progress[at] < 0:
                    break
                at = self.progress[at]
            if done[at] == 1:  # the end of this way, or a circle
                end = self.states[at]
                wrong = "it goes round in a circle" if self.progress[at] >= 0 else unresolved(self.world, end)
                if wrong and not excused(self.world, end):
                    wrong = f"invariant 6: a run without further faults does not resolve it: {wrong}"
                    self.result.violation, self.result.trace = (
                        wrong,
                        [*self._trace(start), "... and so on:", *self._onwards(start)],
                    )
                    return
            for each in way:
                done[each] = 2

    def _trace(self, number: int) -> list[str]:
        way = []
        while number >= 0:
            way.append(number)
            number = self.parents[number]
        states = [self.states[each] for each in reversed(way)]
        return [self._told(before, after) for before, after in pairwise(states)]

    def _onwards(self, number: int, steps: int = 40) -> list[str]:
        lines: list[str] = []
        while self.progress[number] >= 0 and len(lines) < steps:
            after = self.progress[number]
            lines.append(self._told(self.states[number], self.states[after]))
            number = after
        return lines

    def _told(self, before: State, after: State) -> str:
        move = next((move for move, state in self.world.moves(before) if state == after), Move("?"))
        return describe(self.world, before, move, after)
