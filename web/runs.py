"""What handlers begin with: the project that an address names, and where its run stands."""

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

from initializer.access import Action
from initializer.journal.journal import JournalUnavailable
from initializer.model.progress import Progress
from initializer.projects.projects import ProjectRow
from web.room import RunView
from web.security import authorize
from web.state import services

__all__ = ["row_asked", "view_of", "view_or_interrupted"]


async def row_asked(request: Request) -> ProjectRow:
    """The project of the address, if the request may view it. Raises `HTTPException` 403 or 404."""
    row = await services(request).projects.get(request.path_params["id"])
    if row is None:
        raise HTTPException(404, "There is no project with this address.")
    authorize(request, Action.VIEW, row.project)
    return row


async def view_of(request: Request, row: ProjectRow) -> RunView:
    """What a panel shows of the run now: what its room holds, else a fold of its journal."""
    parts = services(request)
    watched = parts.hub.view(row.project.id)
    if watched is not None:
        return watched
    progress = await parts.folds.progress(parts.journal, row)
    view = RunView.of(progress, row, parts.engine.position(row.project.id))
    return msgspec.structs.replace(view, is_interrupted=parts.journal.is_away)


async def view_or_interrupted(request: Request, row: ProjectRow) -> RunView:
    """`view_of`; where the journal does not answer, what the row tells, and that it is not all."""
    try:
        return await view_of(request, row)
    except JournalUnavailable:
        waiting = Progress.waiting(row.project.parameters.pipeline)
        progress = msgspec.structs.replace(waiting, status=row.status)
        return RunView(progress=progress, is_interrupted=True)
