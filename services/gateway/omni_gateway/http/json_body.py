"""From the bytes of a JSON body to its form."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import ValidationError

from omni_common.errors import InvalidRequest
from omni_gateway.replies import refusal
from omni_gateway.schemas import Wire

Form = TypeVar("Form", bound=Wire)


def parse_json(body: bytes, form: type[Form]) -> Form:
    """Raises InvalidRequest. orjson refuses what is no JSON at all: NaN, lone surrogates, nesting beyond 1,024."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    try:
        return form.model_validate(tree)
    except ValidationError as error:
        raise refusal(error) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
