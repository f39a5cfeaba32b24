"""Every query of docs/sql.md, on both databases, against the same questions asked of the rows in Python."""

import math
import random
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from initializer.projects.database import migrate

pytestmark = pytest.mark.anyio

ROWS = 100_000
STEPS = ("create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize")
TEMPLATES = ("bare", "python-service", "static-site")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WEEK_AGO = datetime(2026, 11, 17, tzinfo=UTC)
PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
QUERIES = dict(re.findall(r"^## (.+?)\n.*?```sql\n(.+?)```", PAGE, re.MULTILINE | re.DOTALL))
COLUMNS = (
    *("id", "slug", "name", "owner", "idempotency_key", "status", "attempt", "parameters"),
    *("initialization_summary", "initialization_error", "initialization_completed_at", "created_at"),
)

Row = Mapping[str, Any]


def made_up(count: int) -> list[Row]:
    """Rows as runs leave them, some under way, some with a summary of nothing."""
    chance = random.Random(1)
    return [one_row(number, chance) for number in range(count)]


def one_row(number: int, chance: random.Random) -> Row:
    failed = chance.choice(STEPS) if chance.random() < 0.05 else None
    status = "failed" if failed else "initializing" if number % 1000 == 7 else "active"
    ended = NOW - timedelta(seconds=chance.randrange(365 * 86_400))
    steps = []
    for step in STEPS:
        has_failed = step == failed
        ended_so = {"status": "failed", "error": "it said no"} if has_failed else {"status": "completed"}
        steps.append({"step": step, "title": step, "duration": chance.randrange(10_000), **ended_so})
        if has_failed:
            break
    summary = {"steps": steps, "failedStep": failed, "totalDuration": sum(it["duration"] for it in steps)}
    is_over = status != "initializing"
    return {
        "id": f"{number:032}",
        "slug": f"project-{number}",
        "name": f"Project {number}",
        "owner": "local",
        "idempotency_key": f"{number:032}",
        "status": status,
        "attempt": 1,
        "parameters": {"template": {"name": chance.choice(TEMPLATES), "version": "0"}},
        "initialization_summary": summary if is_over else None,
        "initialization_error": f"{failed} failed: it said no" if failed else None,
        "initialization_completed_at": ended if is_over else None,
        "created_at": ended - timedelta(minutes=1),
    }


def expected_answers(rows: Sequence[Row]) -> dict[str, list[tuple[Any, ...]]]:
    over = [row for row in rows if row["initialization_summary"]]
    by_template: dict[str, list[Row]] = defaultdict(list)
    durations: dict[tuple[str, str], list[int]] = defaultdict(list)
    failures: Counter[str] = Counter()
    for row in over:
        template = row["parameters"]["template"]["name"]
        by_template[template].append(row)
        for step in row["initialization_summary"]["steps"]:
            if step["status"] == "completed":
                durations[template, step["step"]].append(step["duration"])
            else:
                failures[step["step"]] += 1
    slowest = [
        (row["slug"], row["initialization_summary"]["totalDuration"])
        for row in over
        if row["status"] == "active"
    ]
    recent = [
        row for row in over
        if row["initialization_summary"]["failedStep"] == "setup_gitops"
        and row["initialization_completed_at"] >= WEEK_AGO
    ]  # fmt: skip
    recent.sort(key=lambda row: row["initialization_completed_at"], reverse=True)
    return {
        "Which projects failed in setup_gitops this week?": [(row["slug"],) for row in recent],
        "How many runs succeed?": [
            (template, len(group), succeeded(group), round(100 * succeeded(group) / len(group), 1))
            for template, group in sorted(by_template.items())
        ],
        "Where do runs fail?": sorted(failures.items(), key=lambda it: (-it[1], it[0])),
        "How long does each step take, per template?": [
            (*key, percentile(values, 0.5), percentile(values, 0.95), len(values))
            for key, values in sorted(durations.items())
        ],
        "Which projects took longest?": sorted(slowest, key=lambda it: (-it[1], it[0]))[:10],
    }  # fmt: skip


def succeeded(rows: Sequence[Row]) -> int:
    return sum(row["status"] == "active" for row in rows)


def percentile(values: Sequence[int], share: float) -> int:
    return sorted(values)[math.ceil(share * len(values)) - 1]


def comparable(question: str, answers: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    if "this week" in question:
        return [(answer[0],) for answer in answers]
    if "succeed" in question:
        return [(*answer[:3], float(answer[3])) for answer in answers]
    return [tuple(answer) for answer in answers]


def test_every_query_of_the_page_is_asked_here() -> None:
    assert set(QUERIES) == set(expected_answers([]))
    assert PAGE.count("```sql") == len(QUERIES)


async def test_sqlite_answers_the_questions_and_uses_the_index(tmp_path: Path) -> None:
    await migrate(f"sqlite:///{tmp_path}/projects.db")
    rows = made_up(ROWS)
    with closing(sqlite3.connect(tmp_path / "projects.db")) as connection:
        places = ", ".join("?" for _ in COLUMNS)
        connection.executemany(
            f"INSERT INTO projects ({', '.join(COLUMNS)}) VALUES ({places})",  # noqa: S608
            ([for_sqlite(row[column]) for column in COLUMNS] for row in rows),
        )
        for question, expected in expected_answers(rows).items():
            answers = connection.execute(QUERIES[question]).fetchall()
            assert comparable(question, answers) == expected, question
        plan = connection.execute(
            "EXPLAIN QUERY PLAN " + QUERIES["Which projects failed in setup_gitops this week?"]
        ).fetchall()
        assert "USING INDEX projects_by_failed_step (<expr>=? AND initialization_completed_at>?)" in str(plan)


def for_sqlite(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else value


async def test_postgresql_answers_the_questions_and_uses_the_index(postgres_url: str) -> None:
    await migrate(postgres_url)
    rows = made_up(ROWS)
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.copy_records_to_table(
            "projects",
            records=[
                [
                    msgspec.json.encode(row[column]).decode()
                    if isinstance(row[column], dict)
                    else row[column]
                    for column in COLUMNS
                ]
                for row in rows
            ],
            columns=COLUMNS,
        )
        await connection.execute("ANALYZE projects")
        await connection.execute("SET TIME ZONE 'UTC'")
        for question, expected in expected_answers(rows).items():
            answers = await connection.fetch(QUERIES[question])
            assert comparable(question, answers) == expected, question
        plan = await connection.fetch(
            "EXPLAIN " + QUERIES["Which projects failed in setup_gitops this week?"]
        )
        assert "projects_by_failed_step" in str(plan)
        assert "Seq Scan" not in str(plan)
    finally:
        await connection.close()


@pytest.mark.parametrize("summary", [None, {}, {"steps": None}, {"steps": "text"}, {"steps": []}, [], 7])
async def test_a_summary_without_steps_has_no_rows_in_the_view(
    tmp_path: Path, postgres_url: str, summary: Any
) -> None:
    row = {**one_row(0, random.Random(1)), "initialization_summary": summary}
    text = "null" if summary is None else msgspec.json.encode(summary).decode()
    await migrate(f"sqlite:///{tmp_path}/projects.db")
    await migrate(postgres_url)
    values = [text if column == "initialization_summary" else for_sqlite(row[column]) for column in COLUMNS]
    with closing(sqlite3.connect(tmp_path / "projects.db")) as connection:
        places = ", ".join("?" for _ in COLUMNS)
        connection.execute(f"INSERT INTO projects ({', '.join(COLUMNS)}) VALUES ({places})", values)  # noqa: S608
        assert connection.execute("SELECT * FROM initialization_steps").fetchall() == []
    server = await asyncpg.connect(postgres_url)
    try:
        numbered = ", ".join(f"${number}" for number in range(1, len(COLUMNS) + 1))
        records = [
            value if isinstance(value, datetime) else made
            for value, made in zip(row.values(), values, strict=True)
        ]
        await server.execute(f"INSERT INTO projects ({', '.join(COLUMNS)}) VALUES ({numbered})", *records)  # noqa: S608
        assert await server.fetch("SELECT * FROM initialization_steps") == []
    finally:
        await server.close()
