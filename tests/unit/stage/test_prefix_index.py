"""Which blocks are kept: those used last, never one without those before it, never more than there is room for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_stage.core.prefix_index import Change, Key, PrefixIndex, chain_keys, digest

SECRET = b"of this process"


def chain(words: str) -> tuple[Key, ...]:
    """A block for each letter."""
    return chain_keys([(letter.encode(),) for letter in words], SECRET)


def add(index: PrefixIndex, words: str, size: int = 1) -> Change:
    return index.add(chain(words), [size] * len(words))


def test_the_longest_beginning_that_is_kept_is_found() -> None:
    index = PrefixIndex(budget=10)
    assert add(index, "abc") == Change(made=((0, 0), (1, 1), (2, 2)))
    assert index.find(chain("abcd")) == (0, 1, 2)
    assert index.find(chain("abx")) == (0, 1)
    assert index.find(chain("xbc")) == ()
    assert index.find(()) == ()


def test_what_two_prompts_share_is_kept_once() -> None:
    index = PrefixIndex(budget=10)
    add(index, "abc")
    assert add(index, "abd") == Change(made=((2, 3),))
    assert index.size == len(index) == 4


def test_the_chain_used_longest_ago_goes_first_and_from_its_end() -> None:
    index = PrefixIndex(budget=4)
    add(index, "ab")
    add(index, "cd")
    index.find(chain("ab"))
    assert add(index, "x").dropped == (3,)  # d, though it was made with c
    assert add(index, "y").dropped == (2,)  # c
    assert add(index, "z").dropped == (1,)  # b
    assert index.find(chain("ab")) == (0,)


def test_the_end_of_a_chain_goes_before_its_beginning_even_if_it_was_made_later() -> None:
    index = PrefixIndex(budget=3)
    add(index, "ab")
    index.add(chain("abc"), [1])
    assert add(index, "x").dropped == (2,)


def test_a_chain_does_not_push_out_itself() -> None:
    index = PrefixIndex(budget=3)
    add(index, "x")
    assert add(index, "abcde") == Change(dropped=(0,), made=((0, 1), (1, 2), (2, 3)))
    assert index.find(chain("abcde")) == (1, 2, 3)


def test_what_is_larger_than_the_budget_pushes_nothing_out() -> None:
    index = PrefixIndex(budget=3)
    add(index, "abc")
    assert add(index, "x", size=4) == Change()
    assert index.find(chain("abc")) == (0, 1, 2)


def test_nothing_is_kept_behind_a_block_that_is_gone() -> None:
    index = PrefixIndex(budget=3)
    add(index, "ab")
    add(index, "xyz")
    assert index.add(chain("abc"), [1]) == Change()
    assert len(index) == 3


def test_all_can_be_forgotten_and_numbers_are_never_used_again() -> None:
    index = PrefixIndex(budget=3)
    add(index, "ab")
    assert index.clear() == (1, 0)
    assert index.size == len(index) == 0
    assert add(index, "ab").made == ((0, 2), (1, 3))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([(b"ab", b"c")], [(b"a", b"bc")], id="parts cut elsewhere"),
        pytest.param([(b"ab",)], [(b"ab", b"")], id="an empty part more"),
        pytest.param([(b"a",), (b"c",)], [(b"b",), (b"c",)], id="another block before"),
        pytest.param([(b"a",), (b"b",)], [(b"a", b"b")], id="one block for two"),
    ],
)
def test_what_differs_has_another_key(one: Sequence[Sequence[bytes]], other: Sequence[Sequence[bytes]]) -> None:
    assert chain_keys(one, SECRET)[-1] != chain_keys(other, SECRET)[-1]


def test_a_key_is_long_and_belongs_to_its_process() -> None:
    (key,) = chain_keys([(b"a",)], SECRET)
    assert len(key) == 32
    assert key != chain_keys([(b"a",)], b"of another process")[0]
    assert digest((memoryview(b"a"),), SECRET) == digest((b"a",), SECRET)


WORDS = st.text("ab", min_size=1, max_size=6)


@given(st.lists(st.tuples(st.booleans(), WORDS, st.integers(1, 3)), max_size=60), st.integers(1, 12))
def test_whatever_happens_the_budget_holds_and_no_block_lacks_those_before_it(
    steps: list[tuple[bool, str, int]], budget: int
) -> None:
    index = PrefixIndex(budget)
    held: dict[int, int] = {}  # as the owner of the memory sees it
    words: set[str] = set()
    for is_added, word, size in steps:
        found = index.find(chain(word))
        assert set(found) <= set(held)
        if is_added:
            change = add(index, word, size)
            for block in change.dropped:
                del held[block]
            for place, block in change.made:
                assert block not in held
                assert place >= len(found)
                held[block] = size
            words.add(word)
    assert index.size == sum(held.values()) <= budget
    assert len(index) == len(held)
    beginnings = {word[:n] for word in words for n in range(1, len(word) + 1)}
    assert sum(len(index.find(chain(b))) == len(b) for b in beginnings) == len(held)
