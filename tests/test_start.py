"""What stops a start says so in one sentence, from the real command line; what does not is silent."""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.server import ServerProcess, free_port, initializer
from initializer.checks import examine

Settings = Mapping[str, str]

NEWER = "a newer version has migrated the tables"


def program(folder: Path, name: str, script: str) -> str:
    """The PATH of a folder with just this program."""
    folder.mkdir()
    file = folder / name
    file.write_text(script)
    file.chmod(0o755)
    return str(folder)


def without_git(folder: Path) -> Settings:
    return {"PATH": program(folder / "bin", "other", "#!/bin/sh\n")}


def with_old_git(folder: Path) -> Settings:
    return {"PATH": program(folder / "bin", "git", "#!/bin/sh\necho git version 2.20.1\n")}


def with_git_that_is_none(folder: Path) -> Settings:
    return {"PATH": program(folder / "bin", "git", "#!/bin/sh\necho hello\n")}


def with_git_that_cannot_be_started(folder: Path) -> Settings:
    return {"PATH": program(folder / "bin", "git", "#!/no/such/interpreter\n")}


def with_a_file_as_data_folder(folder: Path) -> Settings:
    (folder / "data").write_text("a file")
    return {}


def with_a_data_folder_that_cannot_be_made(folder: Path) -> Settings:
    return {"DATA_DIR": "/proc/data"}


def with_a_folder_in_place_of_the_lock(folder: Path) -> Settings:
    (folder / "data" / "lock").mkdir(parents=True)
    return {}


def with_what_is_no_database(folder: Path) -> Settings:
    (folder / "data").mkdir()
    (folder / "data" / "projects.db").write_text("This is a text and no database. " * 100)
    return {}


def check_refusal(command: str, settings: Settings, sentence: str) -> None:
    """One line that says what is wrong, on standard error for a start, and status 1."""
    ended = initializer(command, settings)
    said = ended.stderr if command == "serve" else ended.stdout
    assert ended.returncode == 1, said
    assert "Traceback" not in ended.stdout + ended.stderr
    if command == "serve":
        (line,) = ended.stderr.splitlines()
        assert line.startswith("Cannot start: ")
        assert ended.stdout == ""
    else:
        (line,) = (each for each in ended.stdout.splitlines() if each.startswith("FAIL"))
        assert ended.stderr == ""
    assert re.search(sentence, line), line
    assert len(line) < 400


@pytest.mark.parametrize("command", ["serve", "doctor"])
@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (without_git, "git is not installed: install it"),
        (with_old_git, r"git 2\.20\.1 is too old: 2\.32 is needed"),
        (with_git_that_is_none, "git of unknown version is too old"),
        (with_git_that_cannot_be_started, "git .* cannot be started"),
        (with_a_file_as_data_folder, "DATA_DIR .*/data cannot be written: "),
        (with_a_data_folder_that_cannot_be_made, "DATA_DIR /proc/data cannot be written: "),
        (with_a_folder_in_place_of_the_lock, "DATA_DIR .*/data cannot be written: "),
        (with_what_is_no_database, "DATABASE_URL .*projects.db cannot be opened: file is not a database"),
    ],
)
def test_a_machine_that_is_not_as_it_must_be_is_refused_in_one_sentence(
    tmp_path: Path, prepare: Callable[[Path], Settings], sentence: str, command: str
) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port()), **prepare(tmp_path)}
    check_refusal(command, settings, sentence)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "http", "PORT is 'http'; it takes a whole number from 0 to 65535"),
        ("PORT", "65536", "PORT is '65536'"),
        ("PORT", "0", "PORT is 0, but PUBLIC_URL is not set"),
        ("PORT", "-1", "PORT is '-1'"),
        ("PORT", "٨٠٠٠", "PORT is '٨٠٠٠'"),
        ("MAX_CONCURRENT_RUNS", "0", "MAX_CONCURRENT_RUNS is '0'; it takes a whole number from 1"),
        ("JOURNAL_RETENTION_DAYS", "1.5", "JOURNAL_RETENTION_DAYS is '1.5'"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL is 'loud'; it takes DEBUG, INFO, WARNING or ERROR"),
        ("TRUST_NETWORK", "yes", "TRUST_NETWORK is 'yes'; it takes 1 or 0"),
        ("PUBLIC_URL", "projects.example.com", "PUBLIC_URL is 'projects.example.com'; it takes an address"),
        ("PUBLIC_URL", "https://example.com/projects", "PUBLIC_URL .* without a path"),
        ("PUBLIC_URL", "https://[", r"PUBLIC_URL is 'https://\['"),
        ("PUBLIC_URL", "https://example.com:99999", "PUBLIC_URL is 'https://example.com:99999'"),
        ("DATABASE_URL", "mysql://db/projects", "DATABASE_URL is neither sqlite:///.* nor postgresql://"),
        ("DATABASE_URL", "postgresql:///projects", "DATABASE_URL is neither"),
        ("DATABASE_URL", "sqlite:////srv/C#/projects.db", "DATABASE_URL holds a # or a [?].* %23 and %3F"),
        ("DATABASE_URL", "sqlite:////srv/what?/projects.db", "DATABASE_URL holds a # or a [?]"),
        (
            "DATABASE_URL",
            "postgresql://db/projects",
            "REDIS_URL is not set, but DATABASE_URL names",
        ),
        (
            "DATABASE_URL",
            "postgresql://db/projects?sslmode=require&channel_binding=require",
            "DATABASE_URL has the parameter channel_binding; it takes sslmode and sslrootcert",
        ),
        ("REDIS_URL", "redis://cache", "DATABASE_URL does not name a PostgreSQL, but REDIS_URL is set"),
        ("REDIS_URL", "http://cache", "REDIS_URL is no address such as redis://"),
        ("ENGINE", "celery", "ENGINE is .celery.; it takes inline or bullmq"),
        ("ENGINE", "bullmq", "ENGINE is bullmq, which needs the two servers"),
        ("LEASE_S", "1", "LEASE_S is '1'; it takes a whole number from 2"),
        ("DATABASE_URL", "sqlite:////no/such/folder/projects.db", "DATABASE_URL"),
        ("HOST", "0.0.0.0", "HOST is 0.0.0.0, which other machines can reach.* Set TRUST_NETWORK=1"),
        ("HOST", "::", "HOST is ::, which other machines can reach"),
        ("HOST", "no-such-host.invalid", "HOST"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(
    tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port()), name: value}
    (failed,) = (finding for finding in examine(settings) if not finding.is_ok)
    assert re.search(sentence, failed.sentence), failed.sentence


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_the_command_line_names_such_a_setting(tmp_path: Path, command: str) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": "http"}
    check_refusal(command, settings, "PORT is 'http'; it takes a whole number from 0 to 65535")


def test_a_start_for_everybody_is_refused_where_nobody_has_an_account(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port()), "HOST": "0.0.0.0"}
    check_refusal("serve", settings, "HOST is 0.0.0.0, which other machines can reach.* Set TRUST_NETWORK=1")


@pytest.mark.parametrize("command", ["serve", "doctor"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.7.7"])
def test_a_start_for_a_network_that_would_be_told_of_localhost_is_refused(
    tmp_path: Path, host: str, command: str
) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port()), "HOST": host}
    settings["TRUST_NETWORK"] = "1"
    check_refusal(command, settings, f"PUBLIC_URL is not set, but HOST is {host}: .* such as http://")


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_port_that_is_in_use_is_named(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(port)}
        check_refusal(command, settings, f"PORT {port} on 127.0.0.1 is in use")


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_data_folder_that_another_process_holds_is_refused(server: ServerProcess, command: str) -> None:
    settings = {**server.settings, "PORT": str(free_port())}
    check_refusal(command, settings, "DATA_DIR .*/data is in use by another process")


def test_a_network_that_is_trusted_is_served(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path), "PORT": "0", "HOST": "0.0.0.0", "TRUST_NETWORK": "1"}
    ended = initializer("doctor", {**settings, "PUBLIC_URL": "http://projects.example.com"})
    assert ended.returncode == 0, ended.stdout


def test_the_doctor_finds_nothing_wrong_with_a_machine_that_is_as_it_must_be(tmp_path: Path) -> None:
    ended = initializer("doctor", {"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port())})
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert [line[:4] for line in ended.stdout.splitlines()] == ["ok  "] * 3


def test_a_first_start_makes_no_noise(server: ServerProcess) -> None:
    assert f"http://localhost:{server.port}" in server.stdout
    assert server.stdout.count("\n") == 1
    levels = {json.loads(line)["level"] for line in server.stderr.splitlines()}
    assert levels <= {"info"}
    assert "warn" not in server.stderr.lower()


def test_a_start_needs_no_setting_and_no_home(tmp_path: Path) -> None:
    """`make run` as a person types it, except for the port, which may be taken on this machine."""
    server = ServerProcess(tmp_path)
    del server.settings["DATA_DIR"]
    server.start()
    server.wait_for_end(server.create("Bare"))
    assert server.data == tmp_path / "data"
    server.close()


@pytest.mark.parametrize("name", ["C# x", "a?b", "a%41b", "a\nb", "a\udcffb"])
def test_a_folder_of_any_name_holds_all_that_is_kept(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    server = ServerProcess(folder).start()
    server.wait_for_end(server.create())
    server.close()
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_server_ends_at_once_and_quietly(server: ServerProcess, number: signal.Signals) -> None:
    status = server.stop(number)
    assert status in (0, 128 + number, -number)
    assert server.complaints() == []


def test_a_server_started_with_another_umask_or_from_another_folder_finds_its_files(tmp_path: Path) -> None:
    """Templates and static files are found beside the program, wherever it was started."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    server = ServerProcess(elsewhere)
    before = os.umask(0o077)
    try:
        server.start()
    finally:
        os.umask(before)
    page = server.client.get("/projects/new")
    assert page.status_code == 200
    for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        assert server.client.get(address).status_code == 200, address
    server.close()
    shutil.rmtree(elsewhere)


def test_a_step_back_to_an_older_version_starts_with_a_warning(server: ServerProcess) -> None:
    server.stop()
    server.execute("UPDATE alembic_version SET version_num = '9999'")
    server.allow(NEWER)
    server.restart()
    server.wait_for_end(server.create())
    (complaint,) = server.complaints()
    assert NEWER in complaint
