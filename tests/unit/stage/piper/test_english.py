"""What English text is said as. espeak-ng reads the digits that stay."""

from __future__ import annotations

import pytest

from omni_stage.models.piper.components.english import spell_out
from omni_stage.models.piper.components.sentences import split
from omni_stage.models.piper.components.text import tidy

SAID = {
    # titles, initials, abbreviations
    "Dr. Smith met Mr. Jones.": "Doctor Smith met Mr Jones.",
    "He lives on Main St.": "He lives on Main Street.",
    "St. John's on 5th St. NW": "Saint John's on 5th Street NW",
    "Mt. Everest, Prof. Lee": "Mount Everest, Professor Lee",
    "J. K. Rowling and George W. Bush": "J K Rowling and George W Bush",
    "e.g. apples, i.e. fruit, etc.": "for example, apples, that is, fruit, et cetera.",
    "Acme Inc. grew. Smith Jr. left.": "Acme Incorporated grew. Smith Junior left.",
    "the U.S. Army": "the U.S Army",
    "in the U.S. The end": "in the U.S. The end",
    "a Ph.D. in physics": "a PHD in physics",
    "cats vs. dogs": "cats versus dogs",
    "Elm Dr. is near Ft. Worth": "Elm Drive is near Fort Worth",
    "Vol. II and Ch. IV": "Volume 2 and Chapter 4",
    "No. 7, Vol. 3, pp. 12": "Number 7, Volume 3, pages 12",
    "He said no. 5 people left.": "He said no. 5 people left.",
    "#1": "number 1",
    # money
    "$5.20": "5 dollars and 20 cents",
    "$1": "1 dollar",
    "$0.01": "1 cent",
    "$1,250.75": "1,250 dollars and 75 cents",
    "$1.5 million": "1.5 million dollars",
    "$3.5B": "3.5 billion dollars",
    "US$20": "20 U.S dollars",
    "$0, $1, and $.50": "0 dollars, 1 dollar, and 50 cents",
    "$5-10, £2.50-£3, $1-2 million": "5 to 10 dollars, 2.50 to 3 pounds, 1 to 2 million dollars",
    "£5m and $10k": "5 million pounds and 10 thousand dollars",
    "£20 and €3.50": "20 pounds and 3 euros and 50 cents",
    # dates and years
    "12/03/2024": "December 3rd, 20 24",
    "2024-03-12": "March 12th, 20 24",
    "13/13/2024": "13/13/2024",
    "25/12/2024": "December 25th, 20 24",
    "March 12, 2024": "March 12th, 20 24",
    "12 March 1905": "12th of March 19 oh 5",
    "Jan. 5": "January 5th",
    "Mon. Sept. 3": "Monday September 3rd",
    "He sat. In the sun.": "He sat. In the sun.",
    "in 1984, in 1900, in 2005": "in 19 84, in 19 hundred, in 2005",
    "in 1500 people": "in 1500 people",
    "1990s, the 80s, '60s, 2000s": "19 nineties, the eighties, sixties, 2 thousands",
    "1914-1918": "19 14 to 19 18",
    # times
    "10:05 a.m. tomorrow": "10 oh 5 AM tomorrow",
    "at 5 p.m. We left": "at 5 PM. We left",
    "8:00 and 15:00 and 10:30": "8 o'clock and 15 hundred hours and 10 30",
    "9am-5pm, 6:00-7:30": "9 AM to 5 PM, 6 o'clock to 7 30",
    "By 5 pm I was home; at 5 p.m. I left.": "By 5 PM I was home; at 5 PM. I left.",
    # units
    "10 km, 1 km, 5kg": "10 kilometers, 1 kilometer, 5 kilograms",
    "-5 °C and 20°F": "-5 degrees Celsius and 20 degrees Fahrenheit",
    "a 5G network, 3M, 12 V": "a 5G network, 3M, 12 volts",
    "It took 30 min. We left": "It took 30 minutes. We left",
    "60 mph": "60 miles per hour",
    "5'10\"": "5 foot 10",
    # numbers
    "1/2 cup, 2 ½ cups, 7/9": "one half cup, 2 and a half cups, 7/9",
    "5-10 people": "5 to 10 people",
    "1, 2, g and 3, -4 and 5. -6": "1, 2, g and 3, -4 and 5. -6",
    "3 - 2 = 1, 7 - 9 days": "3 minus 2 = 1, 7 to 9 days",
    "3 < 5 and b > a": "3 is less than 5 and b is greater than a",
    "3-4=-1": "3 minus 4= minus 1",
    "2*3, 3x4, .5": "2 times 3, 3 by 4, point 5",
    "24/7": "24 7",
    "555-1234": "5 5 5, 1 2 3 4",
    "(555) 123-4567": "5 5 5, 1 2 3, 4 5 6 7",
    "1234567890123": "1 2 3 4, 5 6 7 8, 9 0 1 2, 3",
    "x² and CO2": "x squared and C.O 2",
    "World War II, Louis XIV, Malcolm X": "World War 2, Louis the 14th, Malcolm X",
    # addresses stay what they are
    "see https://foo.co.uk/a": "see foo.co.uk/a",
    "a@foo.co.uk": "a@foo.co.uk",
    "version 1.20.3 and 3.14": "version 1 point 20 point 3 and 3.14",
    "192.168.0.1.": "192 point 168 point 0 point 1.",
}


@pytest.mark.parametrize(("text", "said"), SAID.items())
def test_it_is_said_so(text: str, said: str) -> None:
    assert spell_out(tidy(text), month_first=True) == said


def test_outside_the_united_states_the_day_comes_first() -> None:
    assert spell_out("12/03/2024", month_first=False) == "March 12th, 20 24"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("Dr. A. Smith Jr. of Acme Inc. lives on Main St. in the U.S. today.", 1, id="no end in it"),
        pytest.param("It is 5 p.m. We go. Plan B. Then C.", 4, id="ends after abbreviations"),
        pytest.param("It cost $3.50. No. 5 won. So do I. We agree.", 4, id="ends after numbers and one letter"),
    ],
)
def test_abbreviations_end_sentences_only_where_a_new_one_begins(text: str, count: int) -> None:
    assert len(split(spell_out(tidy(text), month_first=True))) == count


def test_the_worst_input_takes_no_time() -> None:
    """Patterns that look back and forth can take quadratic time, or worse: the test's own time limit would tell."""
    for unit in ("1", "1/", "1-", "1:", "$1,", "A.", "St. ", "1 ", "(555) ", "a.m. ", " ", "'", "-", "*", "\n", ",1"):
        spell_out(tidy(unit * (4096 // len(unit))), month_first=True)
