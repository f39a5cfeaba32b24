"""Two web processes, two workers, their servers, people who create and watch runs, and what befalls them."""

import random
import secrets
import time
from collections.abc import Callable, Sequence

import httpx

from harness.cluster import Cluster, ClusterProcess, Watcher
from harness.promises import Losses
from harness.proxy import Relay
from harness.servers import PostgresServer, RedisServer
from harness.waiting import wait_for

__all__ = ["FAULTS", "LEASE_S", "SoakWorld"]

LEASE_S = 2
STALL_S = 2.5 * LEASE_S
"""Beyond the lease, so that whoever stalls has lost its runs when it wakes."""
JSON = {"accept": "application/json"}


class SoakWorld:
    """What runs, what was asked of it, and who watches. The ways to the servers can be cut."""

    def __init__(
        self,
        cluster: Cluster,
        redis: tuple[RedisServer, Relay],
        postgres: tuple[PostgresServer, Relay],
        draw: random.Random,
    ) -> None:
        self.cluster = cluster
        self.redis, self.redis_relay = redis
        self.postgres, self.postgres_relay = postgres
        self.draw = draw
        self.webs: list[ClusterProcess] = [cluster.process(), cluster.process()]
        self.workers: list[ClusterProcess] = [cluster.worker(), cluster.worker()]
        for process in self.processes:
            process.allow("")  # with everything away in turn, complaints are what is wanted
        self.viewers: dict[str, list[Watcher]] = {}
        self.cancelled: set[str] = set()
        self.losses = Losses()

    @property
    def processes(self) -> Sequence[ClusterProcess]:
        """Those that serve, and those that work."""
        return [*self.webs, *self.workers]

    def create(self, *, at_both: bool = False) -> str:
        """Send a form until it is taken, as people do; maybe to both processes, again and again in turns."""
        form = {"name": f"Soak {len(self.viewers) + 1}", "key": secrets.token_urlsafe(24)}
        webs = self.webs if at_both else [self.draw.choice(self.webs)]
        places = {wait_for(lambda web=web: _sent(web, form), "the form is taken") for web in webs}
        assert len(places) == 1, places
        project = places.pop().rpartition("/")[2]
        self.watch(project)
        return project

    def watch(self, project: str) -> None:
        """Two pages of the run, one at each process."""
        self.viewers[project] = [Watcher(web, project) for web in self.webs]

    def ask(self, action: str, project: str) -> int:
        """The status of the answer to a wish; 0 if there was none."""
        try:
            answer = self.draw.choice(self.webs).client.post(
                f"/projects/{project}/{action}", json={}, headers=JSON
            )
        except httpx.TransportError:
            return 0
        return answer.status_code

    def forget(self, how: Callable[[], None]) -> None:
        """Kill Redis, let something happen to its data, and start it."""
        self.losses.note(self.cluster, self.viewers)
        self.redis.kill()
        how()
        self.redis.start()


def _sent(web: ClusterProcess, form: dict[str, str]) -> str:
    try:
        answer = web.post(form)
    except httpx.TransportError:
        return ""
    return answer.headers["location"] if answer.status_code == 303 else ""


# What happens


def kill_web(world: SoakWorld) -> None:
    _replace(world.draw.choice(world.webs), ClusterProcess.kill)


def stop_web(world: SoakWorld) -> None:
    _replace(world.draw.choice(world.webs), ClusterProcess.stop)


def kill_worker(world: SoakWorld) -> None:
    _replace(world.draw.choice(world.workers), ClusterProcess.kill)


def stop_worker(world: SoakWorld) -> None:
    _replace(world.draw.choice(world.workers), ClusterProcess.stop)


def stall_worker(world: SoakWorld) -> None:
    _stall(world.draw.choice(world.workers))


def stall_web(world: SoakWorld) -> None:
    _stall(world.draw.choice(world.webs))


def redis_with_all(world: SoakWorld) -> None:
    world.redis.kill()
    world.redis.start()


def redis_with_less(world: SoakWorld) -> None:
    copy = world.redis.backup()
    time.sleep(world.draw.uniform(0, 3))  # what is said meanwhile is what it will have lost
    world.forget(lambda: world.redis.restore(copy))


def redis_with_nothing(world: SoakWorld) -> None:
    world.forget(world.redis.wipe)


def freeze_redis(world: SoakWorld) -> None:
    world.redis.freeze()
    time.sleep(STALL_S)
    world.redis.thaw()


def cut_redis(world: SoakWorld) -> None:
    world.redis_relay.cut()


def stop_postgres(world: SoakWorld) -> None:
    world.postgres.stop()
    time.sleep(world.draw.uniform(0, 3))
    world.postgres.start()


def cut_postgres(world: SoakWorld) -> None:
    world.postgres_relay.cut()


def cut_pages(world: SoakWorld) -> None:
    for project in list(world.viewers)[-3:]:
        for viewer in world.viewers[project]:
            viewer.cut()


def send_twice(world: SoakWorld) -> None:
    world.create(at_both=True)


def cancel(world: SoakWorld) -> None:
    project = world.draw.choice(list(world.viewers)[-3:])
    if world.ask("cancel", project) in (0, 202):
        world.cancelled.add(project)


def retry(world: SoakWorld) -> None:
    _again(world, "retry")


def restart(world: SoakWorld) -> None:
    _again(world, "restart")


FAULTS: dict[str, Callable[[SoakWorld], None]] = {
    "kill -9 of a web process": kill_web,
    "kill -9 of a worker": kill_worker,
    "SIGTERM of a web process": stop_web,
    "SIGTERM of a worker": stop_worker,
    "a web process stalled past its lease": stall_web,
    "a worker stalled past its lease": stall_worker,
    "Redis killed, back with all": redis_with_all,
    "Redis killed, back with less": redis_with_less,
    "Redis killed, back with nothing": redis_with_nothing,
    "Redis frozen past the lease": freeze_redis,
    "connections to Redis cut": cut_redis,
    "PostgreSQL stopped and started": stop_postgres,
    "connections to PostgreSQL cut": cut_postgres,
    "connections of pages cut": cut_pages,
    "the same form sent to two processes": send_twice,
    "a run cancelled": cancel,
    "a cancelled run retried": retry,
    "a cancelled run restarted": restart,
}


def _replace(process: ClusterProcess, end: Callable[[ClusterProcess], object]) -> None:
    end(process)
    process.restart()


def _stall(process: ClusterProcess) -> None:
    process.freeze()
    time.sleep(STALL_S)
    process.thaw()


def _again(world: SoakWorld, action: str) -> None:
    """Of a run that was cancelled; one is made where there is none."""
    if not world.cancelled:
        project = world.create()
        wait_for(lambda: world.ask("cancel", project) == 202, "a run is cancelled")
        world.cancelled.add(project)
    project = world.draw.choice(sorted(world.cancelled))
    wait_for(lambda: world.cluster.row(project)["status"] in ("active", "cancelled", "failed"), "its end")
    for viewer in world.viewers[project]:
        viewer.end()
    if wait_for(lambda: world.ask(action, project), "an answer") == 202:
        world.cancelled.discard(project)
    world.watch(project)
