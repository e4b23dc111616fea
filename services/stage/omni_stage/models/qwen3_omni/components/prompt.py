"""A conversation as token ids: the checkpoint's chat template, rendered so that a caller's text stays text.

The template is rendered with stand-ins for the callers' texts. Control tokens are looked for only in what the
template itself wrote; then the texts are put in and tokenised together with the plain text around them, with control
tokens switched off. For texts without such strings the ids are those of the usual way, and no text makes a turn, an
image or a spoken mark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from omni_common.request import Media, Message, Modality, Text

# Private-use characters: no template writes them, and what callers write is not there when we look.
_STAND_IN = re.compile("\ue000(\\d+)\ue001")


class PromptBuilder:
    """Tokenises conversations for one checkpoint."""

    def __init__(self, folder: Path, media_tokens: Mapping[Modality, int]) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._template = chat_template(folder)
        self._plain: Any = AutoTokenizer.from_pretrained(folder).backend_tokenizer
        self._plain.encode_special_tokens = True
        added = {content: int(number) for content, number in self._tokenizer.get_added_vocab().items()}
        self._control = added
        self._controls = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))))
        self._media_tokens = media_tokens

    def build(self, messages: Sequence[Message], counts: Mapping[Modality, Sequence[int]]) -> list[int]:
        """The prompt's ids; each image, audio and video takes as many positions as `counts` says, in order."""
        texts: list[str] = []
        conversation = [_as_template_wants(message, texts) for message in messages]
        rendered: str = self._tokenizer.apply_chat_template(
            conversation, chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        left = {self._media_tokens[kind]: iter(numbers) for kind, numbers in counts.items()}
        ids: list[int] = []
        plain: list[str] = []
        for piece in self._pieces(rendered, texts):
            if isinstance(piece, str):
                plain.append(piece)
                continue
            ids += self.encode("".join(plain))
            plain.clear()
            ids += [piece] * next(left[piece]) if piece in left else [piece]
        return ids + self.encode("".join(plain))

    def encode(self, plain: str) -> list[int]:
        """A text's ids; what looks like a control token is spelt out."""
        ids: list[int] = self._plain.encode(plain, add_special_tokens=False).ids if plain else []
        return ids

    def _pieces(self, rendered: str, texts: Sequence[str]) -> Iterator[str | int]:
        """Plain text, and the ids of control tokens that the template wrote."""
        for position, piece in enumerate(_STAND_IN.split(rendered)):
            if position % 2:
                yield texts[int(piece)]
                continue
            start = 0
            for control in self._controls.finditer(piece):
                yield piece[start : control.start()]
                yield self._control[control.group()]
                start = control.end()
            yield piece[start:]


def chat_template(folder: Path) -> str | None:
    """The processor's template where the checkpoint has one beside its tokenizer's; None takes the tokenizer's."""
    jinja, published = folder / "chat_template.jinja", folder / "chat_template.json"
    if jinja.is_file():
        return jinja.read_text()
    if published.is_file():
        template: str = json.loads(published.read_bytes())["chat_template"]
        return template
    return None


def _as_template_wants(message: Message, texts: list[str]) -> dict[str, Any]:
    """The message with stand-ins for its texts, which are added to `texts`. Plain text as a string: some templates
    take no list from the system."""
    content: list[dict[str, str]] = []
    for part in message.parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": f"\ue000{len(texts)}\ue001"})
            texts.append(part.text)
        elif isinstance(part, Media):
            kind = str(part.modality)
            content.append({"type": kind, kind: kind})
    if any(part["type"] != "text" for part in content):
        return {"role": str(message.role), "content": content}
    return {"role": str(message.role), "content": "".join(part["text"] for part in content)}
