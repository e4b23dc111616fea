"""The file of keys, and finding the one that a request shows."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from omni_gateway.keys.ring import MAX_KEYS, Key, KeyRing, Stranger, load_keys
from omni_gateway.watched import Unusable

ADA = hashlib.sha256(b"sk-ada").hexdigest()


def load(folder: Path, text: object) -> KeyRing:
    path = folder / "keys.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return load_keys(path)


def test_limits_may_be_left_out(tmp_path: Path) -> None:
    bob = {"sha256": "B" * 64, "requests_per_minute": 60, "concurrent_requests": 8}
    ring = load(tmp_path, {"keys": {"ada": {"sha256": ADA}, "bob": bob}})
    assert ring.keys == (Key("ada", bytes.fromhex(ADA)), Key("bob", b"\xbb" * 32, 60, 8))


def test_a_file_may_let_in_nobody(tmp_path: Path) -> None:
    assert load(tmp_path, {"keys": {}}).find([b"Bearer sk-ada"]) is Stranger.UNKNOWN


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([b"Bearer sk-ada"], "ada"),
        ([b"bearer   sk-ada "], "ada"),
        ([], Stranger.MISSING),
        ([b"Bearer sk-bob"], Stranger.UNKNOWN),
        ([b"Bearer " + ADA.encode()], Stranger.UNKNOWN),
        ([b"Bearer sk-ada extra"], Stranger.UNKNOWN),
        ([b"Bearer \xff\x00"], Stranger.UNKNOWN),
        ([b"Bearer"], Stranger.MALFORMED),
        ([b"Bearer "], Stranger.MALFORMED),
        ([b""], Stranger.MALFORMED),
        ([b"sk-ada"], Stranger.MALFORMED),
        ([b"Basic sk-ada"], Stranger.MALFORMED),
        ([b"Bearer sk-ada", b"Bearer sk-ada"], Stranger.MALFORMED),
    ],
)
def test_the_header_shows_one_key(tmp_path: Path, headers: list[bytes], found: object) -> None:
    shown = load(tmp_path, {"keys": {"ada": {"sha256": ADA}}}).find(headers)
    assert (shown.name if isinstance(shown, Key) else shown) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is no file of keys"),
        ("{}", "keys: it is missing"),
        ({"keys": [], "more": 1}, "keys: input should be a"),
        ({"keys": {}, "more": 1}, "more: it is not known"),
        ({"keys": {"ada": {}}}, "keys.ada.sha256: it is missing"),
        ({"keys": {"ada": {"sha256": "sk-secret"}}}, "keys.ada.sha256: it must be the 64 hex digits"),
        ({"keys": {"ada": {"sha256": ADA, "key": "sk-secret"}}}, "keys.ada.key: it is not known"),
        ({"keys": {"ada": {"sha256": ADA, "requests_per_minute": 0}}}, "greater than or equal to 1"),
        ({"keys": {"ada": {"sha256": ADA, "requests_per_minute": "60"}}}, "a valid integer"),
        ({"keys": {"ada": {"sha256": ADA, "concurrent_requests": 1.5}}}, "a valid integer"),
        ({"keys": {"a\nb": {"sha256": ADA}}}, "a name has"),
        ({"keys": {"ada": {"sha256": ADA}, "bob": {"sha256": ADA.upper()}}}, "one key under two names"),
        (f'{{"keys": {{"ada": {{"sha256": "{ADA}"}}, "ada": {{"sha256": "{ADA}"}}}}}}', "has 'ada' twice"),
        ({"keys": {f"k{n}": {"sha256": f"{n:064x}"} for n in range(MAX_KEYS + 1)}}, f"at most {MAX_KEYS}"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_a_sentence(tmp_path: Path, text: object, why: str) -> None:
    with pytest.raises(Unusable) as caught:
        load(tmp_path, text)
    sentence = str(caught.value)
    assert why in sentence
    assert sentence.endswith(".")
    assert "sk-secret" not in sentence
    assert "\n" not in sentence


def test_a_file_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cannot be read: No such file"):
        load_keys(tmp_path / "none.json")


def test_a_key_that_is_made_opens_the_file_that_is_made_for_it(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "omni_gateway.keys", "ada", "--requests-per-minute", "60"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (key,) = (word for word in made.stderr.split() if word.startswith("sk-omni-"))
    assert key not in made.stdout
    found = load(tmp_path, made.stdout).find([f"Bearer {key}".encode()])
    assert isinstance(found, Key)
    assert (found.name, found.requests_per_minute, found.concurrent_requests) == ("ada", 60, None)
