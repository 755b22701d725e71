"""The scenarios that are searched: in every run, and at night."""

from __future__ import annotations

from model.world import Faults, Scenario

THIS, OTHER, BOTH = frozenset({0}), frozenset({1}), frozenset({0, 1})
"""The decision shard's failover, the other's, one of each."""

EVERYTHING = Faults(lost=1, dies=1, crash=1, failover=BOTH)

ALWAYS = {
    "a statement has failed": Scenario(recoverers=2, failed=True),
    "a link is lost": Scenario(recoverers=2, faults=Faults(lost=1)),
    "the coordinator dies": Scenario(recoverers=2, faults=Faults(dies=1)),
    "a server crashes": Scenario(recoverers=2, faults=Faults(crash=1)),
    "the decision shard forgets": Scenario(recoverers=2, faults=Faults(failover=THIS)),
    "the other shard forgets": Scenario(recoverers=2, faults=Faults(failover=OTHER)),
    "one recoverer, a lost link, a death and a crash": Scenario(faults=Faults(lost=1, dies=1, crash=1)),
    "one recoverer, a death, and the decision shard forgets": Scenario(faults=Faults(dies=1, failover=THIS)),
    "one recoverer, both shards forget": Scenario(faults=Faults(failover=BOTH)),
    "synchronous standbys": Scenario(replicated=True, faults=Faults(dies=1, failover=BOTH)),
    "a forged record": Scenario(recoverers=2, faults=Faults(forged=1)),
    "three participants": Scenario(shards=3, faults=Faults(dies=1)),
    "clean-up": Scenario(cleaner=True, behind=1, faults=Faults(dies=1)),
    "clean-up of a coordinator that is two epochs behind": Scenario(cleaner=True, behind=2, faults=Faults(failover=THIS)),
    "clean-up, and the decision shard forgets": Scenario(cleaner=True, behind=1, faults=Faults(failover=THIS)),
    "clean-up, and the other shard forgets": Scenario(cleaner=True, behind=1, faults=Faults(failover=OTHER)),
    "last agent, a lost link": Scenario(last_agent=True, recoverers=2, faults=Faults(lost=1)),
    "last agent, a death": Scenario(last_agent=True, recoverers=2, faults=Faults(dies=1), failed=True),
    "last agent, a crash": Scenario(last_agent=True, recoverers=2, faults=Faults(crash=1)),
    "last agent, one recoverer, one fault of each kind": Scenario(last_agent=True, faults=EVERYTHING),
    "last agent, clean-up": Scenario(last_agent=True, cleaner=True, behind=1, faults=Faults(lost=1)),
    "last agent, clean-up, and the decision shard forgets": Scenario(
        last_agent=True, cleaner=True, behind=1, faults=Faults(failover=THIS)
    ),
}

NIGHTLY = {
    "last agent, one fault of each kind": Scenario(last_agent=True, recoverers=2, faults=EVERYTHING),
    "last agent, three participants": Scenario(last_agent=True, shards=3, faults=Faults(lost=1, dies=1)),
    "last agent, clean-up, a lost link, a death": Scenario(
        last_agent=True, cleaner=True, behind=1, faults=Faults(lost=1, dies=1)
    ),
    "one fault of each kind": Scenario(faults=EVERYTHING),
    "two recoverers, a lost link and a death": Scenario(recoverers=2, faults=Faults(lost=1, dies=1)),
    "two recoverers, a death, and the decision shard forgets": Scenario(recoverers=2, faults=Faults(dies=1, failover=THIS)),
    "two recoverers, both shards forget": Scenario(recoverers=2, faults=Faults(failover=BOTH)),
    "two lost links": Scenario(faults=Faults(lost=2, dies=1)),
    "synchronous standbys, every fault": Scenario(replicated=True, faults=Faults(lost=1, dies=1, failover=BOTH)),
    "three participants, a lost link": Scenario(shards=3, faults=Faults(lost=1)),
    "three participants, and the decision shard forgets": Scenario(shards=3, faults=Faults(failover=THIS)),
    "clean-up that can't see the standbys": Scenario(cleaner=True, behind=1, blind=True, faults=Faults(failover=OTHER)),
    "clean-up, a lost link": Scenario(cleaner=True, behind=1, faults=Faults(lost=1)),
    "clean-up, a death, and the decision shard forgets": Scenario(cleaner=True, behind=1, faults=Faults(dies=1, failover=THIS)),
    "clean-up, two recoverers": Scenario(cleaner=True, behind=1, recoverers=2),
}
