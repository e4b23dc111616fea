"""Phonemes by the real espeak-ng, and the ids that a voice was trained with."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.unit.stage.piper.conftest import VoiceMaker

from omni_stage.models.piper.components.espeak import Espeak, EspeakFailed
from omni_stage.models.piper.components.phonemes import MAX_IDS, MAX_PHONEMES, Alphabet, pieces
from omni_stage.models.piper.components.preprocess import Preprocessor
from omni_stage.models.piper.components.voice import load_voice


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    return Espeak("en-us")


@pytest.fixture(scope="module")
def alphabet(joe: Path) -> Alphabet:
    return Alphabet(load_voice(joe))


def test_each_text_has_its_own_phonemes(espeak: Espeak) -> None:
    assert espeak.phonemes(["Hello there", "How are you", "10:30"]) == ["həlˈoʊ ðˈɛɹ", "hˈaʊ ɑːɹ juː", "tˈɛn θˈɜːɾi"]


def test_texts_stay_apart_whatever_the_program_makes_of_them(espeak: Espeak) -> None:
    """It breaks lines at clauses and every hundred words, cuts long input, and takes [[…]] for phonemes."""
    texts = [
        "Mr. A. Then B",
        "word " * 600,
        "é" * 3000,
        "llllllll",
        "[[llllllll]]",
        "...",
        "a\nb",
        "-v de --help",
        "中文",
    ]
    answers = espeak.phonemes(texts)

    assert len(answers) == len(texts)
    assert answers[1].split().count("wˈɜːd") == 600
    assert answers[5] == ""
    assert answers[6] == "ɐ bˈiː"
    assert espeak.phonemes(["b"])[0] == "bˈiː"


def test_no_character_is_read_by_more_than_its_name(espeak: Espeak) -> None:
    assert len(espeak.phonemes(["9 " * 1024])[0].split()) == 1024
    assert len(espeak.phonemes(["中" * 1024])[0].encode()) < 25_000


def test_a_missing_program_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ValueError, match=r"needs the program espeak-ng.*apt-get install espeak-ng.*brew install"):
        Espeak("en-us")


def test_a_voice_that_the_program_lacks_is_named() -> None:
    with pytest.raises(EspeakFailed, match=r"for the voice 'xx-nope': .*does not exist"):
        Espeak("xx-nope").phonemes(["hello"])


def test_a_program_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EspeakFailed, match=r"did not answer within 0\.2 s"):
        Espeak("en-us", deadline=0.2).phonemes(["hello"])


def test_ids_are_framed_and_padded_as_the_voice_was_trained(alphabet: Alphabet) -> None:
    assert alphabet.ids("hə.").tolist() == [1, 0, 20, 0, 59, 0, 10, 0, 2]


def test_letters_and_their_accents_are_known_one_by_one(alphabet: Alphabet) -> None:
    assert alphabet.known("ç") == "c\u0327"


def test_what_a_voice_does_not_know_is_left_out_and_counted(
    alphabet: Alphabet, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "omni_stage.models.piper"):
        assert alphabet.known("(fr)hə(en-us)^_$漢a") == "həa"
    assert [record.__dict__["count"] for record in caplog.records] == [4]


def test_a_voice_may_have_stand_ins_for_symbols(voice_like_joe: VoiceMaker) -> None:
    assert Alphabet(load_voice(voice_like_joe({"phoneme_map": {"c": ["k", "h"]}}))).known("cat") == "khat"


def test_a_voice_without_the_symbols_that_frame_a_sentence_is_none(voice_like_joe: VoiceMaker) -> None:
    with pytest.raises(ValueError, match=r"has no ids for the symbols \$ \^"):
        Alphabet(load_voice(voice_like_joe({"phoneme_id_map": {"_": [0], "a": [1]}})))


@pytest.mark.parametrize(
    ("clauses", "sizes"),
    [
        pytest.param(["ab,", "cd."], [7], id="all in one"),
        pytest.param(["a" * 100 + ",", "b" * 95 + "."], [MAX_PHONEMES], id="just fits"),
        pytest.param(["a" * 100 + ",", "b" * 96 + "."], [101, 97], id="one too many"),
        pytest.param(["a" * (2 * MAX_PHONEMES + 1)], [MAX_PHONEMES, MAX_PHONEMES, 1], id="a word without end"),
    ],
)
def test_a_sentence_is_cut_at_its_clauses(clauses: list[str], sizes: list[int]) -> None:
    made = list(pieces(clauses))

    assert [len(piece) for piece in made] == sizes
    assert " ".join(made).replace(" ", "") == "".join(clauses).replace(" ", "")


def test_a_clause_too_long_is_cut_between_words_into_like_parts() -> None:
    words = [f"word{n}" for n in range(60)]
    made = list(pieces([" ".join(words) + "."]))

    assert " ".join(made) == " ".join(words) + "."
    assert max(map(len, made)) <= MAX_PHONEMES
    assert max(map(len, made)) - min(map(len, made)) < 20


def test_no_piece_of_any_text_is_longer_than_it_may_be(preprocessor: Preprocessor, alphabet: Alphabet) -> None:
    for text in ("word " * 400, "x" * 999, "1" * 999, "Word, " * 99, "中" * 99, "9 " * 99):
        made = [piece for sentence in preprocessor.phonemes(preprocessor.split(text)) for piece in sentence]
        assert made
        assert max(len(alphabet.ids(piece)) for piece in made) <= MAX_IDS
