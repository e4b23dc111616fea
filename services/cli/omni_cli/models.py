"""`omni models`."""

from __future__ import annotations

from omni_cli.conversation import open_client
from omni_cli.errors import CommandError
from omni_stage.models import families, load_pipeline_config


async def list_models(url: str) -> None:
    print("Model families:")
    for name in sorted(families()):
        pipeline = load_pipeline_config(name)
        takes, makes = (", ".join(sorted(m)) for m in (pipeline.input_modalities, pipeline.output_modalities))
        print(f"  {name:16} {takes} → {makes}; {len(pipeline.stages)} stages")
    try:
        async with open_client(url) as client:
            served = [model.id async for model in client.models.list()]
    except CommandError as error:
        print(error)
    else:
        print(f"Served at {url}: {', '.join(served) or 'nothing'}")
