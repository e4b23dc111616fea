"""StageService: hands each Deliver stream to a session and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omni.stage.v1 import stage_pb2_grpc
from omni_common.component import Component
from omni_common.rpc.duplex import server_duplex
from omni_stage.incoming import DeliverSession

SERVICE = "omni.stage.v1.StageService"
ALLOWED = {f"/{SERVICE}/Deliver": frozenset({Component.STAGE})}


class StageServicer(stage_pb2_grpc.StageServiceServicer):
    def __init__(self, open_session: Callable[[], DeliverSession]) -> None:
        self._open_session = open_session

    async def Deliver(self, _: Any, context: Any) -> None:  # type: ignore[override]  # grpc.aio's reader-writer style
        await self._open_session().run(server_duplex(context))
