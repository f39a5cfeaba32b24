"""PostgreSQL is away, or its answer is, when the end of a run that people watch is written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import Cluster, ClusterProcess, Watcher, watching
from harness.gate import Gate
from harness.proxy import Relay
from harness.servers import PostgresServer, RedisServer
from harness.waiting import wait_for
from harness.whole import check_whole, reasons

POSTGRES_IS_AWAY = (
    *("trying again", "lost runs not looked for", "rows not read", "summary not read"),
    "Failed to restore the pool connection floor",  # which asyncpg says
)
LAST_STEP = "verify"
"""The last one that the gate can hold."""
IN_THE_SUMMARY = b'"totalDuration"'
"""Words that nothing but the final write sends to the database."""
COUNT_ENDS = """
    CREATE TABLE ends (project text);
    CREATE FUNCTION count_end() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO ends VALUES (NEW.id); RETURN NEW; END $$;
    CREATE TRIGGER count_ends AFTER UPDATE ON projects FOR EACH ROW
        WHEN (NEW.initialization_summary IS NOT NULL) EXECUTE FUNCTION count_end();
"""


@pytest.fixture
def cluster(
    tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer, gate: Gate
) -> Iterator[Cluster]:
    """Without processes, on a PostgreSQL of its own."""
    cluster = Cluster(tmp_path, postgres_server, redis_server, PATH=gate.path)
    yield cluster
    cluster.close()


def held_at_its_last_step(cluster: Cluster, process: ClusterProcess, gate: Gate) -> str:
    """A run that has nearly ended; what is written of its end is counted from here on."""
    gate.hold(LAST_STEP)
    project = process.create("Phoenix")
    process.wait_for_event(project, type="step_started", step=LAST_STEP)
    cluster.sql(COUNT_ENDS)
    return project


def check_ended_once(cluster: Cluster, project: str, *viewers: Watcher) -> None:
    """All see the same end, the summary tells the whole run, and was written once, by the first attempt."""
    frames = {viewer.end() for viewer in viewers}
    assert len(frames) == 1
    assert "clone" in frames.pop()
    check_whole(cluster, project)
    assert reasons(cluster, project) == ["created"]
    assert cluster.sql("SELECT project FROM ends") == [(project,)]


def test_viewers_are_told_that_the_summary_is_being_saved_until_postgresql_is_back(
    cluster: Cluster, gate: Gate, postgres_server: PostgresServer
) -> None:
    running, other = cluster.process(), cluster.process()
    for text in POSTGRES_IS_AWAY:
        running.allow(text)
        other.allow(text)
    project = held_at_its_last_step(cluster, running, gate)
    viewers = [Watcher(running, project), Watcher(other, project), Watcher(other, project)]
    with watching(*viewers):
        wait_for(lambda: all(viewer.events for viewer in viewers), "the first frame of each page")
        postgres_server.stop()
        gate.release(LAST_STEP)
        for viewer in viewers:
            wait_for(lambda it=viewer: "Saving the summary" in it.last_frame, "what viewers are told")
        wait_for(lambda: "trying again" in running.stderr, "a final write that fails")
        assert running.events(project)[-1]["type"] == "saving"
        postgres_server.start()
        running.wait_for_end(project)
        check_ended_once(cluster, project, *viewers)
    assert all(viewer.connections == 1 for viewer in viewers)


def test_an_end_whose_answer_was_lost_after_the_commit_is_read_back_and_seen_by_every_viewer(
    cluster: Cluster, gate: Gate, postgres_server: PostgresServer
) -> None:
    with Relay(postgres_server.port) as relay:
        running = cluster.process(database_url=relay.through(cluster.settings["DATABASE_URL"]))
        other = cluster.process()
        running.allow("trying again")
        project = held_at_its_last_step(cluster, running, gate)
        viewers = [Watcher(running, project), Watcher(other, project), Watcher(other, project)]
        with watching(*viewers):
            wait_for(lambda: all(viewer.events for viewer in viewers), "the first frame of each page")
            answer_lost = relay.lose_answer_to(IN_THE_SUMMARY)
            gate.release(LAST_STEP)
            assert answer_lost.wait(30)
            running.wait_for_end(project)
            check_ended_once(cluster, project, *viewers)
        assert running.stderr.count("trying again") == 1
        running.stop()
