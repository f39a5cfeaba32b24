import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.servers import strace_program
from initializer.processes import CommandFailed, CommandTimedOut, Limits, open_child, run_program

pytestmark = pytest.mark.anyio

STUBBORN = """trap 'touch asked' TERM
until grep -q '^State:.S' /proc/$PPID/status; do :; done
echo $$ > pid
echo ready
while :; do sleep 5; done
"""
"""It waits for its parent, `timeout`, which ends of a signal that comes before it is done with its fork."""


@pytest.fixture(params=["asyncio", "asyncio+uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "asyncio+uvloop"}


async def run_python(code: str, home: Path, **options: object) -> str:
    return await run_program([sys.executable, "-c", textwrap.dedent(code)], home=home, **options)


async def wait_until(condition: Callable[[], object]) -> None:
    """Return when it holds; the time limit of the test ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 - other processes set no event
        await asyncio.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pid_in(file: Path) -> int:
    return int(file.read_text() or 0) if file.exists() else 0


async def test_it_gives_the_standard_output_and_hands_on_the_lines_of_both_streams(tmp_path: Path) -> None:
    lines: list[str] = []
    output = await run_program(["sh", "-c", "echo out; echo error >&2"], home=tmp_path, on_line=lines.append)
    assert output == "out\n"
    assert sorted(lines) == ["error", "out"]


async def test_a_child_sees_nothing_of_the_servers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    output = await run_program(["env"], home=tmp_path, env={"EXTRA": "1"})
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert names == {"PATH", "LANG", "HOME", "EXTRA"}
    assert f"HOME={tmp_path}" in output.splitlines()


async def test_a_child_has_an_empty_input_and_a_session_of_its_own(tmp_path: Path) -> None:
    code = "import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == os.getpgid(0), os.getsid(0))"
    text, is_leader_group, session = (await run_python(code, tmp_path)).split()
    assert (text, is_leader_group) == ("''", "True")
    assert int(session) != os.getsid(0)


async def test_a_failure_tells_program_status_and_last_words_but_no_credentials(tmp_path: Path) -> None:
    script = "echo first >&2; echo cannot read https://user:hunter2@host/x >&2; exit 3"
    with pytest.raises(CommandFailed) as caught:
        await run_program(["sh", "-c", script], home=tmp_path)
    assert caught.value.status == 3
    assert caught.value.command == ("sh", "-c", script)
    assert caught.value.last_lines[0] == "first"
    assert str(caught.value) == "sh ended with exit status 3: cannot read https://***@host/x"


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="nonesuch could not be started: there is no such program"):
        await run_program(["nonesuch"], home=tmp_path)


async def test_a_program_ended_by_a_signal_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="was ended by signal 11") as caught:
        await run_program(["sh", "-c", "kill -SEGV $$"], home=tmp_path)
    assert caught.value.status == -signal.SIGSEGV


async def test_a_program_that_outlives_its_limit_is_gone_with_its_whole_group(tmp_path: Path) -> None:
    with pytest.raises(CommandTimedOut, match=r"did not end within 0\.3 s and was stopped"):
        await run_program(
            ["sh", "-c", "sleep 60 & echo $! > grandchild; echo $$ > pid; wait"],
            home=tmp_path,
            timeout_s=0.3,
        )
    assert not is_alive(pid_in(tmp_path / "pid"))
    assert not is_alive(pid_in(tmp_path / "grandchild"))


async def test_a_program_that_ignores_the_polite_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initializer.processes.GRACE_S", 0.1)
    with pytest.raises(CommandTimedOut):
        await run_program(["sh", "-c", STUBBORN], home=tmp_path, timeout_s=0.3)
    assert not is_alive(pid_in(tmp_path / "pid"))


async def test_a_cancellation_travels_on_once_the_group_is_gone(tmp_path: Path) -> None:
    running = asyncio.create_task(run_program(["sh", "-c", "echo $$ > pid; sleep 60"], home=tmp_path))
    await wait_until(lambda: pid_in(tmp_path / "pid"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(pid_in(tmp_path / "pid"))


async def test_a_second_cancellation_ends_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initializer.processes.GRACE_S", 1000)
    lines: list[str] = []
    running = asyncio.create_task(run_program(["sh", "-c", STUBBORN], home=tmp_path, on_line=lines.append))
    await wait_until(lambda: lines)
    running.cancel()
    await wait_until((tmp_path / "asked").exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(pid_in(tmp_path / "pid"))


async def test_what_a_program_leaves_running_is_killed_and_holds_no_output_open(
    tmp_path: Path,
) -> None:
    output = await run_program(["sh", "-c", "sleep 60 & echo $!"], home=tmp_path)
    assert not is_alive(int(output))


async def test_an_error_of_the_callback_ends_the_program_and_travels_on(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise LookupError(line)

    with pytest.raises(LookupError, match="hello"):
        await run_program(["sh", "-c", "echo $$ > pid; echo hello; sleep 60"], home=tmp_path, on_line=refuse)
    assert not is_alive(pid_in(tmp_path / "pid"))


async def test_a_long_line_and_broken_bytes_are_bounded_and_made_readable(tmp_path: Path) -> None:
    lines: list[str] = []
    code = """
        import sys
        out = sys.stdout.buffer
        out.write(b"x" * 10_000_000 + b"\\n" + b"\\xff\\xfe broken\\n" + b"10%\\r55%\\r100%\\n" + b"unended")
    """
    output = await run_python(code, tmp_path, on_line=lines.append, stdout_bytes=1_000)
    assert output == "x" * 1_000
    assert [len(line) < 10_000 for line in lines] == [True] * 4
    assert lines[0].endswith("(line cut)")
    assert lines[1:] == ["\ufffd\ufffd broken", "100%", "unended"]


async def test_a_flood_of_lines_leaves_the_event_loop_its_turns(tmp_path: Path) -> None:
    count = turns = 0

    def take(line: str) -> None:
        nonlocal count
        count += 1

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    ticking = asyncio.create_task(tick())
    await run_program(["seq", "300000"], home=tmp_path, on_line=take)
    ticking.cancel()
    assert count == 300_000
    assert turns > 300_000 / 500


async def test_limits_hold_for_memory_processor_and_files(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="MemoryError"):
        await run_python("bytearray(2_000_000_000)", tmp_path, limits=Limits(memory_bytes=500_000_000))
    with pytest.raises(CommandFailed, match="ended by signal"):
        await run_python("while True: pass", tmp_path, limits=Limits(cpu_s=1))
    with pytest.raises(CommandFailed, match="File too large"):
        code = "open('big', 'wb').write(bytes(2_000_000))"
        await run_python(code, tmp_path, limits=Limits(file_bytes=1_000_000))
    assert (tmp_path / "big").stat().st_size <= 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits are set by prlimit, a program of Linux")
async def test_where_the_system_grants_less_than_a_limit_that_holds(tmp_path: Path) -> None:
    code = """
        import asyncio, ctypes, sys
        from pathlib import Path
        from resource import RLIMIT_FSIZE, RLIMIT_NPROC, setrlimit
        from initializer.processes import Limits, run_program

        PR_CAPBSET_DROP = CAP_SYS_RESOURCE = 24  # lets root raise what is granted
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0)
        setrlimit(RLIMIT_FSIZE, (3000, 3000))
        setrlimit(RLIMIT_NPROC, (3000, 3000))
        tell = "from resource import *; print(*map(getrlimit, (RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_CPU)))"
        limits = Limits(memory_bytes=1 << 30, cpu_s=60, file_bytes=50_000, processes=4096)
        print(asyncio.run(run_program([sys.executable, "-c", tell], home=Path.cwd(), limits=limits)))
    """
    assert (await run_python(code, tmp_path)).strip() == "(3000, 3000) (3000, 3000) (60, 60)"


async def test_leaving_the_block_early_ends_the_child(tmp_path: Path) -> None:
    async with open_child(["sh", "-c", "echo ready; sleep 60"], home=tmp_path) as child:
        assert await child.stdout.readline() == b"ready\n"
        assert is_alive(child.pid)
    assert not is_alive(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no signal for a parent's death")
async def test_kill_9_of_the_server_takes_the_child_and_its_children_along(tmp_path: Path) -> None:
    code = """
        import asyncio, sys
        from pathlib import Path
        from initializer.processes import run_program
        script = "trap '' TERM; sleep 600 & echo $! > grandchild; echo $$ > pid; wait"
        asyncio.run(run_program(["sh", "-c", script], home=Path(sys.argv[1]), timeout_s=600))
    """
    server = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)])  # noqa: ASYNC220
    await wait_until(lambda: pid_in(tmp_path / "pid"))
    server.kill()
    server.wait()
    await wait_until(lambda: not is_alive(pid_in(tmp_path / "pid")))
    await wait_until(lambda: not is_alive(pid_in(tmp_path / "grandchild")))


@pytest.mark.skipif(sys.platform != "linux", reason="strace is a program of Linux")
@pytest.mark.parametrize("runner", ["asyncio.run", "uvloop.run"])
def test_each_descriptor_is_closed_once(tmp_path: Path, runner: str) -> None:
    """Closed twice, it may be another file's by then: of a thread that opened one in between."""
    code = f"""
        import asyncio, os, uvloop
        from pathlib import Path
        from initializer.processes import run_program
        async def main():
            counts = []
            for _ in range(3):
                await run_program(["sh", "-c", "echo out; echo error >&2"], home=Path("{tmp_path}"))
                await asyncio.sleep(0)
                counts.append(len(os.listdir("/proc/self/fd")))
            print(counts[1] == counts[2])
        {runner}(main())
    """
    trace = tmp_path / "trace"
    options = ["-f", "-qq", "-e", "trace=close", "-e", "status=failed", "-o", str(trace)]
    program = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run([strace_program(), *options, *program], capture_output=True, text=True, check=True)
    assert ended.stdout == "True\n"
    assert "EBADF" not in trace.read_text()
