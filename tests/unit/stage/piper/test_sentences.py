"""From what people type to clauses and sentences, whatever the language."""

from __future__ import annotations

import pytest

from omni_stage.models.piper.components.sentences import split
from omni_stage.models.piper.components.text import tidy


def parts(text: str) -> list[list[str]]:
    return [[clause.text + clause.mark for clause in sentence] for sentence in split(tidy(text))]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        pytest.param("One. Two! Three?", [["One."], ["Two!"], ["Three?"]], id="each mark"),
        pytest.param("Who?! Me!! You...", [["Who?"], ["Me!"], ["You."]], id="several marks"),
        pytest.param("a, b; c: d", [["a,", "b;", "c:", "d."]], id="clauses keep their marks"),
        pytest.param("It is 3.14, at 10:30, for 1,000.", [["It is 3.14,", "at 10:30,", "for 1,000."]], id="in numbers"),
        pytest.param("Well... maybe. Wait... What?", [["Well,", "maybe."], ["Wait."], ["What?"]], id="ellipses"),
        pytest.param("see z.B. das hier", [["see z.B. das hier."]], id="a stop before small letters"),
        pytest.param(
            'He said "stop!" and (then?) left.', [['He said "stop!'], ["and (then?"], ["left."]], id="closers"
        ),
        pytest.param("Title\nBody", [["Title."], ["Body."]], id="a line is a sentence"),
        pytest.param("hard\nwrapped text", [["hard wrapped text."]], id="but not one that goes on in small letters"),
        pytest.param("one -- two – three - four—five", [["one,", "two,", "three,", "four,", "five."]], id="dashes"),
        pytest.param("well-known 5–7", [["well-known 5–7."]], id="dashes that join"),
        pytest.param("你好。世界！、", [["你好."], ["世界!"]], id="Chinese"),
        pytest.param("ماذا؟ نعم، لا", [["ماذا?"], ["نعم,", "لا."]], id="Arabic"),
        pytest.param("क्या। हाँ", [["क्या."], ["हाँ."]], id="Hindi"),
        pytest.param("¿Qué? ¡Bien!", [["Qué?"], ["Bien!"]], id="Spanish"),
        pytest.param("Bonjour ! Ça va ?", [["Bonjour!"], ["Ça va?"]], id="a space before the mark"),
    ],
)
def test_text_is_split(text: str, sentences: list[list[str]]) -> None:
    assert parts(text) == sentences


@pytest.mark.parametrize(
    "text", ["", "   \n\t ", "...", "?!", "🙂🙂", "—", '"" ()', "\x00\x07", "* * *", "\u200b", "👍🏽."]
)
def test_what_nobody_can_say_is_nothing(text: str) -> None:
    assert parts(text) == []


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        pytest.param("Hi 🙂👍🏽!", "Hi !", id="emoji"),
        pytest.param("a\x00b\x07c\u200bd", "abcd", id="controls"),
        pytest.param("a\tb\u00a0 c", "a b c", id="spaces"),
        pytest.param("“It’s” «this»", '"It\'s" "this"', id="quotes"),
        pytest.param("[[x]] {y}", "((x)) (y)", id="brackets, which espeak-ng would take for phonemes"),
        pytest.param("# Title\n- **one** and `two_three`", "Title\none and 'two three'", id="markup"),
        pytest.param("cafe\u0301", "café", id="composed"),
        pytest.param("2 * 3 = 6", "2 * 3 = 6", id="a product"),
        pytest.param("a\r\nB\rC\u2028D", "a\nB\nC\nD", id="line ends"),
        pytest.param("−5 °C ©", "-5 °C ©", id="symbols with a name"),
        pytest.param("\ud800ok", "ok", id="half a character"),
    ],
)
def test_text_is_made_plain(text: str, plain: str) -> None:
    assert tidy(text) == plain
