"""What must hold for the servicer's methods themselves."""

from __future__ import annotations

import inspect

import pytest

from omni.coordinator.v1.coordinator_pb2 import DESCRIPTOR
from omni_coordinator.servicer import CoordinatorService

METHODS = [method.name for method in DESCRIPTOR.services_by_name["CoordinatorService"].methods]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_coroutine_that_writes_and_never_a_generator(name: str) -> None:
    method = vars(CoordinatorService)[name]
    assert inspect.iscoroutinefunction(method)
    assert not inspect.isasyncgenfunction(method)
