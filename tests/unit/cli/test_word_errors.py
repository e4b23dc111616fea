"""How what was said is compared with what was heard."""

from __future__ import annotations

import pytest

from omni_cli.word_errors import WordErrors, word_errors


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        pytest.param("Good morning, Ada!", "good morning ada", 0, id="case and marks do not count"),
        pytest.param("It's  a\nwell-known word.", "it's a well known word", 0, id="nor do spaces and hyphens"),
        pytest.param("It’s 'fine'.", "it's fine", 0, id="nor do the kinds of quotes"),
        pytest.param("one two three", "one too three", 1, id="a word to change"),
        pytest.param("one two three", "one three", 1, id="a word to add"),
        pytest.param("one two three", "one two and three", 1, id="a word to remove"),
        pytest.param("one two three", "", 3, id="nothing was heard"),
        pytest.param("one two three", " ... ", 3, id="only marks were heard"),
    ],
)
def test_words_that_differ_are_counted(said: str, heard: str, errors: int) -> None:
    assert word_errors(said, heard).errors == errors


def test_the_rate_is_of_the_words_that_were_said() -> None:
    assert word_errors("one two three four", "one too three") == WordErrors(errors=2, words=4)
    assert WordErrors(2, 4).rate == 0.5


@pytest.mark.parametrize("said", ["", " ", "?!"])
def test_nothing_said_cannot_be_misheard(said: str) -> None:
    with pytest.raises(ValueError, match="nothing was said"):
        word_errors(said, "hello")
