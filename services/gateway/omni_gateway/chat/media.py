"""Media in a chat body: from URLs and base64 text to files.

Nothing that a caller writes is ever opened or fetched.
"""

from __future__ import annotations

import base64
import binascii

from omni_common.errors import InvalidRequest
from omni_common.request import Media, Modality
from omni_gateway.media import media_of_bytes


def media_of_url(modality: Modality, url: str, param: str) -> Media:
    """The file in a data URL; any other URL is refused, since this server fetches nothing."""
    code = f"invalid_{modality}_url"
    if url[:5].lower() != "data:":
        raise InvalidRequest(
            f"Only data URLs are served here; this server fetches no {modality} from elsewhere.", param=param, code=code
        )
    comma = url.find(",")
    # The longest header anyone needs is some 60 characters; a missing comma must not copy the whole body.
    if not 0 <= comma < 256 or not url[:comma].lower().endswith(";base64"):
        raise InvalidRequest("A data URL must have the form data:<type>;base64,<data>.", param=param, code=code)
    return media_of_base64(modality, url[comma + 1 :], param)


def media_of_base64(modality: Modality, text: str, param: str) -> Media:
    """The file in a base64 string."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"This {modality} is not valid base64.", param=param, code="invalid_value") from None
    return media_of_bytes(modality, data, param)
