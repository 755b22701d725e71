"""Each rule that is taken out of the engine or its driver is missed: the search finds a violation, and prints the shortest way to it."""

from __future__ import annotations

import pytest

from model import bugs
from model.scenarios import OTHER, THIS
from model.search import search
from model.world import Faults, Scenario

CLEANING = Scenario(cleaner=True, behind=1)
FORGETFUL = Scenario(cleaner=True, behind=1, faults=Faults(failover=THIS))

BUGS: dict[bugs.Bug, Scenario] = {
    bugs.decide_before_all_have_prepared: Scenario(),
    bugs.tag_of_prepare_not_checked: Scenario(failed=True),
    bugs.prepare_in_one_pipeline_with_begin: Scenario(faults=Faults(crash=1)),
    bugs.prepare_retried: Scenario(faults=Faults(crash=1)),
    bugs.epoch_not_checked_by_prepare: Scenario(cleaner=True, behind=2, faults=Faults(failover=THIS)),
    bugs.any_timeline_may_decide: Scenario(faults=Faults(failover=THIS)),
    bugs.roll_others_back_before_the_decision_is_proven_aborted: Scenario(faults=Faults(lost=1)),
    bugs.gone_is_success_on_the_decision_shard: Scenario(),
    bugs.gone_is_success_on_a_participant: Scenario(faults=Faults(failover=OTHER)),
    bugs.coordinator_reads_the_record_before_the_gid: Scenario(faults=Faults(lost=1)),
    bugs.skip_the_tombstone: Scenario(),
    bugs.guess_when_the_decision_shard_is_away: Scenario(faults=Faults(lost=1)),
    bugs.presume_abort_after_a_failover_with_a_shard_unreached: Scenario(faults=Faults(lost=1, failover=THIS)),
    bugs.anybodys_record_counts: Scenario(faults=Faults(forged=1)),
    bugs.the_decision_shard_is_not_asked_again: Scenario(faults=Faults(failover=THIS)),
    bugs.the_abort_is_not_announced: Scenario(faults=Faults(failover=THIS)),
    bugs.conclude_abort_by_reading: Scenario(last_agent=True, faults=Faults(lost=1)),
    bugs.coordinator_fences_without_asking_again: Scenario(last_agent=True, faults=Faults(lost=1)),
    bugs.fence_without_asking_again: Scenario(last_agent=True),
    bugs.tombstone_without_the_retirement_check: Scenario(cleaner=True, behind=1, blind=True, faults=Faults(failover=OTHER)),
    bugs.tombstone_taken_out_early: Scenario(cleaner=True),
    bugs.retire_past_a_prepared_gid: CLEANING,
    bugs.retire_past_a_record_that_was_not_checked: CLEANING,
    bugs.retire_deletes_by_epoch: CLEANING,
    bugs.list_before_looking_at_records: CLEANING,
    bugs.delete_others_records_first: FORGETFUL,
    bugs.delete_others_records_before_the_retirement_is_replayed: FORGETFUL,
    bugs.do_not_compare_after_a_promotion: FORGETFUL,
    bugs.compare_while_others_still_finish: FORGETFUL,
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
@pytest.mark.timeout(600)
def test_a_seeded_bug_is_found(bug: bugs.Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    result = search(BUGS[bug])
    print(f"{bug.__name__}: {result}")  # noqa: T201
    assert result.violation, f"not found in {result}"
