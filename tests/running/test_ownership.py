import math

from initializer.running.ownership import Decision, Ownership


def ownership(lease_s: float = 10) -> Ownership:
    return Ownership(attempt=3, lease_s=lease_s, now=100)


def test_a_fresh_lease_lets_a_runner_proceed_and_an_old_one_has_it_ask() -> None:
    held = ownership()
    assert held.decide(now=109.9) is Decision.PROCEED
    assert held.decide(now=110) is Decision.VERIFY


def test_a_renewal_counts_from_when_it_was_asked_for() -> None:
    held = ownership()
    held.renewed(now=105)
    assert held.decide(now=114) is Decision.PROCEED
    held.renewed(now=101)  # an answer that comes late proves nothing new
    assert held.decide(now=114) is Decision.PROCEED
    assert held.decide(now=115) is Decision.VERIFY


def test_the_row_renews_the_proof_or_ends_the_ownership_for_good() -> None:
    held = ownership()
    held.row_read(attempt=3, now=120)
    assert held.decide(now=129) is Decision.PROCEED
    held.row_read(attempt=4, now=121)
    held.row_read(attempt=3, now=122)
    assert held.decide(now=122) is Decision.STOP


def test_a_fenced_attempt_stops() -> None:
    held = ownership()
    held.fenced()
    assert held.decide(now=100) is Decision.STOP


def test_without_a_lease_to_lose_a_runner_need_not_ask() -> None:
    assert ownership(math.inf).decide(now=1e9) is Decision.PROCEED


def test_after_a_doubt_even_a_lasting_lease_has_to_be_verified() -> None:
    held = ownership(math.inf)
    held.doubted()
    assert held.decide(now=101) is Decision.VERIFY
    held.row_read(attempt=3, now=101)
    assert held.decide(now=102) is Decision.PROCEED
