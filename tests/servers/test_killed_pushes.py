"""A process is killed while its push writes: what git leaves behind is in nobody's way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.children import children_in
from harness.cluster import Cluster
from harness.gate import Gate
from harness.hook import PushHook
from harness.waiting import wait_for
from harness.whole import check_whole, reasons

StartCluster = Callable[..., Cluster]


@pytest.mark.parametrize(
    ("step", "slug"), [("push_template", "phoenix"), ("setup_gitops", "gitops")], ids=["own", "shared"]
)
def test_a_push_that_kill_9_cut_off_in_mid_write_keeps_no_other_from_pushing(
    start_cluster: StartCluster, gate: Gate, tmp_path: Path, step: str, slug: str
) -> None:
    cluster = start_cluster(path=gate.path, lease_s="2")
    dying, other = cluster.process(), cluster.process()
    before = dying.create("Before")  # so that the shared repository is there
    dying.wait_for_end(before)
    gate.hold(step)
    project = dying.create("Phoenix")
    dying.wait_for_event(project, type="step_started", step=step)
    repository = cluster.data / "repositories" / f"{slug}.git"
    hook = PushHook(repository, tmp_path / "hook")
    gate.release(step)
    wait_for(lambda: hook.is_holding, "a push in the middle of its write")
    dying.kill()
    wait_for(lambda: not children_in(repository), "the end of what the push had started")
    lock = repository / "refs" / "heads" / "main.lock"
    assert lock.exists()
    hook.release()

    other.wait_for_end(project)
    assert not lock.exists()
    assert reasons(cluster, project) == ["created", "takeover"]
    check_whole(cluster, project)
    other.wait_for_end(other.create("After"))
