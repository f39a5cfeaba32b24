"""What stops a start on servers says so in one sentence, from the real command line."""

import json
import ssl
from pathlib import Path

import pytest

from harness.cluster import ONLINE
from harness.server import free_port, initializer
from harness.servers import PostgresServer, RedisServer
from servers.conftest import StartCluster

Settings = dict[str, str]

PERSISTS_NOTHING = "Redis persists nothing: after its restart, running projects refill it"


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str, redis_server: RedisServer) -> Settings:
    return {
        "DATA_DIR": str(tmp_path / "data"),
        "PORT": str(free_port()),
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_server.url,
        "PUBLIC_URL": "https://projects.example.com",
    }


def refusal(settings: Settings) -> str:
    """What `serve` says when it does not start; `doctor` has to say it too."""
    served, examined = initializer("serve", settings), initializer("doctor", settings)
    assert served.returncode == examined.returncode == 1
    assert served.stderr.startswith("Cannot start: ")
    assert "Traceback" not in served.stderr + examined.stderr
    sentence = served.stderr.removeprefix("Cannot start: ").strip()
    assert sentence in examined.stdout
    return sentence


def test_the_doctor_finds_nothing_wrong(settings: Settings) -> None:
    examined = initializer("doctor", settings)
    assert examined.returncode == 0, examined.stdout
    assert "PostgreSQL and Redis answer" in examined.stdout


def test_a_redis_that_throws_keys_away_is_refused(settings: Settings, redis_server: RedisServer) -> None:
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert "maxmemory-policy allkeys-lru" in refusal(settings)


def test_a_redis_cluster_is_refused(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with RedisServer(folder, "--cluster-enabled", "yes") as server:
        settings["REDIS_URL"] = server.url
        assert "Redis Cluster" in refusal(settings)


def test_a_redis_that_does_not_answer_is_named(settings: Settings, redis_server: RedisServer) -> None:
    redis_server.kill()
    assert refusal(settings).startswith("REDIS_URL names a server that does not answer")


def test_a_postgresql_that_does_not_answer_is_named_without_its_password(settings: Settings) -> None:
    settings["DATABASE_URL"] = f"postgresql://app:secret@127.0.0.1:{free_port()}/projects"
    sentence = refusal(settings)
    assert sentence.startswith("DATABASE_URL names a PostgreSQL that cannot be used")
    assert "secret" not in sentence


def test_a_database_that_is_not_there_is_named(settings: Settings, shared_postgres: PostgresServer) -> None:
    settings["DATABASE_URL"] = shared_postgres.url("nowhere")
    assert 'database "nowhere" does not exist' in refusal(settings)


def test_a_postgresql_that_does_not_prove_who_it_is_is_refused(
    settings: Settings, encrypted_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = f"{encrypted_postgres.new_database()}?sslmode=verify-full"
    settings["HOME"] = str(tmp_path)  # where another authority may be named
    settings["DATABASE_URL"] = url
    assert 'root.crt" does not exist' in refusal(settings)
    settings["DATABASE_URL"] = f"{url}&sslmode=yes"
    assert "`sslmode` parameter must be one of: disable, allow" in refusal(settings)
    settings["DATABASE_URL"] = f"{url}&sslrootcert=/no/such.crt"
    assert refusal(settings) == "DATABASE_URL names a file in sslrootcert that is not there"
    settings["DATABASE_URL"] = f"{url}&sslrootcert={ssl.get_default_verify_paths().openssl_cafile}"
    assert "certificate verify failed" in refusal(settings)


def test_an_address_that_demands_encryption_is_served_from(
    start_cluster: StartCluster, encrypted_postgres: PostgresServer
) -> None:
    parameters = f"sslmode=verify-full&sslrootcert={encrypted_postgres.certificate}"
    cluster = start_cluster(database_url=f"{encrypted_postgres.new_database()}?{parameters}")
    assert cluster.process().client.get("/projects/none").status_code == 404


def test_every_process_has_to_be_told_the_same_address(settings: Settings) -> None:
    del settings["PUBLIC_URL"]
    assert refusal(settings).startswith("PUBLIC_URL is not set: all processes have to name the same address")


def test_a_queue_without_its_package_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['bullmq'] = None\n")
    settings |= {"ENGINE": "bullmq", "PYTHONPATH": str(tmp_path)}
    sentence = refusal(settings)
    assert sentence.startswith("ENGINE is bullmq, but the package bullmq is not installed")
    assert sentence in initializer("worker", settings).stderr


def test_the_doctor_says_who_performs_the_runs(settings: Settings) -> None:
    examined = initializer("doctor", {**settings, "ENGINE": "bullmq"})
    assert examined.returncode == 0, examined.stdout
    assert "runs are performed by `initializer worker`" in examined.stdout


def test_a_worker_without_a_queue_is_refused(settings: Settings) -> None:
    refused = initializer("worker", settings)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Cannot start: ENGINE is inline")


def test_everything_that_starts_warns_of_a_redis_that_persists_nothing(
    start_cluster: StartCluster, redis_server: RedisServer
) -> None:
    for name, value in (("appendonly", "no"), ("save", "")):
        assert redis_server.ask("CONFIG", "SET", name, value) == b"+OK\r\n"
    cluster = start_cluster(engine="bullmq")
    web, worker = cluster.process(), cluster.worker()
    for process in (web, worker):
        process.allow(PERSISTS_NOTHING)
        (complaint,) = process.complaints()
        assert (json.loads(complaint)["level"], PERSISTS_NOTHING in complaint) == ("warning", True)
    examined = initializer("doctor", {**web.settings, "PORT": str(free_port())})
    assert examined.returncode == 0, examined.stdout
    assert PERSISTS_NOTHING in examined.stdout


@pytest.mark.parametrize(
    ("engine", "lease_s", "sentence"),
    [
        ("inline", "2", "another process goes on with its runs, after a crash within 6 s."),
        ("inline", "7", "another process goes on with its runs, after a crash within 16 s."),
        ("bullmq", "2", "performed by `initializer worker`, after a crash of one by another within 7 s."),
        ("bullmq", "7", "performed by `initializer worker`, after a crash of one by another within 17 s."),
    ],
)
def test_the_start_says_the_takeover_time_that_the_settings_give(
    start_cluster: StartCluster, engine: str, lease_s: str, sentence: str
) -> None:
    web = start_cluster(engine=engine, lease_s=lease_s).process()
    assert web.stdout.rstrip().endswith(sentence)


def test_a_worker_says_the_takeover_time_that_the_settings_give(start_cluster: StartCluster) -> None:
    worker = start_cluster(engine="bullmq", lease_s="7").worker()
    (online,) = (line for line in worker.stderr.splitlines() if ONLINE in line)
    assert json.loads(online)["takeover_limit_s"] == 17
