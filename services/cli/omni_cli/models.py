"""`omni models`."""

from __future__ import annotations

from openai.types import Model

from omni_cli.conversation import NoMesh, open_client
from omni_cli.served import abilities_of
from omni_stage.models import families, load_pipeline_config


async def list_models(url: str, *, named: bool) -> None:
    """`named`: the mesh was, so that it must be there. Raises CommandError when it cannot be told what is served."""
    print("Model families:")
    for name in sorted(families()):
        print(describe_family(name))
    try:
        async with open_client(url) as client:
            served = [model async for model in client.models.list()]
    except NoMesh as nobody:
        if named:
            raise
        print(nobody)
        return
    print(f"Served at {url}:" if served else f"Nothing is served at {url}.")
    for model in served:
        print(describe_model(model))


def describe_family(name: str) -> str:
    pipeline = load_pipeline_config(name)
    takes, makes = (", ".join(sorted(m)) for m in (pipeline.input_modalities, pipeline.output_modalities))
    return f"  {name:16} {', '.join(sorted(pipeline.tasks))}: {takes} → {makes}; {len(pipeline.stages)} stages"


def describe_model(model: Model) -> str:
    abilities = abilities_of(model)
    parts = [", ".join(abilities.tasks)]
    if abilities.voices:
        parts.append(f"voices {', '.join(abilities.voices)}")
    return f"  {model.id:16} {'; '.join(filter(None, parts))}".rstrip()
