"""What every service of the omni mesh shares; see libs/omni_common/README.md for its parts."""

import os

# gRPC reads this when it is first imported. The engine that its Python release has had since 1.80 takes twice as long
# for a message there and back between two processes as the one that it had before (255 µs against 139, one stream with
# asyncio on two cores, grpcio 1.85.1). Once a release has no other engine the name means nothing to it; a test says so.
_ENGINE = "-event_engine_client,-event_engine_listener"
os.environ.setdefault("GRPC_EXPERIMENTS", _ENGINE)  # noqa: TID251  # not a setting of ours
