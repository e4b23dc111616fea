"""Values that work alone work together: Kubernetes takes the documents, edges are as the pipelines have them, services
would start. What must not go together is refused, elsewhere."""

from __future__ import annotations

import pytest
from tests.chart.combinations import draw
from tests.chart.conftest import Renderer
from tests.chart.edges import allowed, wanted
from tests.chart.schemas import complaints
from tests.chart.test_objects import named
from tests.chart.test_settings import refusals

DRAWS = 16
KUBERNETES = "1.34.0"  # the oldest that has everything in the choices


@pytest.mark.parametrize("seed", range(DRAWS))
def test_together(seed: int, render: Renderer) -> None:
    values = draw(seed)
    rendered = render(values, kube_version=KUBERNETES)
    assert [what for document in rendered.documents for what in complaints(document, KUBERNETES)] == [], values
    assert allowed(rendered) == wanted(rendered), values
    assert list(refusals(rendered)) == [], values


@pytest.mark.parametrize("seed", range(DRAWS))
def test_pods_name_what_is_made_or_what_the_user_named(seed: int, render: Renderer) -> None:
    values = draw(seed)
    rendered = render(values, kube_version=KUBERNETES)
    there = {(one["kind"], one["metadata"]["name"]) for one in rendered.documents}
    there |= {("Secret", one["spec"]["secretName"]) for one in rendered.of("Certificate")}
    there |= {("Secret", name) for name in ("public", "callers", "caller", "hub")} | {
        ("PersistentVolumeClaim", "models")
    }
    used = {one for pod in rendered.pods for volume in pod.spec.get("volumes", ()) for one in named(volume)}
    assert used <= there, values
