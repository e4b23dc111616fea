"""What English text leaves unsaid, said: espeak-ng reads numbers and words well, but not money, dates or "Dr.".

One table of rules, applied in its order. What a rule makes is still read by espeak-ng, so digits may stay digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omni_stage.models.piper.components.english_words import (
    COUNTERS,
    CURRENCIES,
    DAYS,
    FRACTIONS,
    LETTER_UNITS,
    MONTH,
    MONTHS,
    NUMBERED,
    ROMAN,
    SCALES,
    STARTERS,
    TENS,
    TITLES,
    UNITS,
    VULGAR,
    WORDS,
)

_ENDS_HERE = re.compile(rf"""["')]*(\s*$|\s*\n|\s+["'(]*({STARTERS})\b)""")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a stretch of text is said as."""

    pattern: re.Pattern[str]
    say: Callable[[re.Match[str]], str]


def spell_out(text: str, *, month_first: bool) -> str:
    """The text as it is read aloud. `month_first`: whether 3/4/2024 is in March or in April."""
    for rule in _RULES_MONTH_FIRST if month_first else _RULES_DAY_FIRST:
        text = rule.pattern.sub(rule.say, text)
    return text


def _rule(pattern: str, say: Callable[[re.Match[str]], str] | str, flags: int = 0) -> Rule:
    return Rule(re.compile(pattern, flags), say if callable(say) else lambda found: found.expand(say))


def _any(words: Mapping[str, object]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _stop(found: re.Match[str]) -> str:
    """The full stop of an abbreviation, where there is one and it ends the sentence too."""
    return "." if found[0].endswith(".") and _ENDS_HERE.match(found.string, found.end()) else ""


def _cased(found: re.Match[str], word: str) -> str:
    """With the capital of what it stands for: a small letter would say that the sentence goes on."""
    return word[0].upper() + word[1:] if found[0][0].isupper() else word


def _ordinal(number: int) -> str:
    """In digits: espeak-ng reads 21st as it should."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _year(digits: str) -> str:
    """In pairs, as years are read: 19 99, 19 oh 5, 19 hundred; 2000 to 2009 as any number."""
    century, rest = digits[:2], int(digits[2:])
    if digits[1] == "0" and rest < 10:
        return digits
    if rest == 0:
        return f"{century} hundred"
    return f"{century} oh {rest}" if rest < 10 else f"{century} {rest}"


def _date(year: str | None, month: str, day: str) -> str:
    said = f"{month} {_ordinal(int(day))}"
    return f"{said}, {_year(year)}" if year else said


def _numeric_date(found: re.Match[str]) -> str:
    month, day = int(found["month"]), int(found["day"])
    if month > 12:
        month, day = day, month  # it can be meant in one way only
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return _date(found["year"], list(MONTHS.values())[month - 1], str(day))


def _day_of_month(found: re.Match[str]) -> str:
    day = int(found["day"])
    return f"{found['month']} {_ordinal(day)}" if 1 <= day <= 31 else found[0]


def _time(found: re.Match[str]) -> str:
    hour, minute, half = int(found["hour"]), int(found["minute"]), found["half"]
    said = f"{hour} oh {minute}" if 0 < minute < 10 else f"{hour} {minute}"
    if minute == 0:
        said = str(hour) if half else f"{hour} o'clock" if 0 < hour <= 12 else f"{hour} hundred hours"
    return f"{said} {half.upper()}M{_stop(found)}" if half else said


def _money(found: re.Match[str]) -> str:
    one, many, small_one, small_many = CURRENCIES[found["sign"]]
    whole, part, scale = found["whole"] or "0", found["part"], found["scale"]
    if found["us"]:
        one, many = f"U.S {one}", f"U.S {many}"
    if scale or found["to"] or (part and len(part) != 2):
        amount = f"{whole}.{part}" if part else whole
        if found["to"]:
            amount += f" to {found['to']}"
        return f"{amount} {SCALES.get(scale, scale)} {many}" if scale else f"{amount} {many}"
    said = [f"{whole} {one if whole == '1' else many}"] if int(whole.replace(",", "")) or not int(part or 0) else []
    if int(part or 0):
        said.append(f"{int(part)} {small_one if int(part) == 1 else small_many}")
    return " and ".join(said)


def _unit(found: re.Match[str]) -> str:
    unit = found["unit"]
    one, many = LETTER_UNITS.get(unit) or UNITS[unit.lower().replace(" ", "")]
    return f"{found['number']} {one if found['number'] == '1' else many}{_stop(found) if found['stop'] else ''}"


def _fraction(found: re.Match[str]) -> str:
    said = FRACTIONS.get((found["over"], found["under"]))
    if said is None:
        return found[0]
    return f"{found['whole']} and {said.replace('one ', 'a ', 1)}" if found["whole"] else said


def _vulgar(found: re.Match[str]) -> str:
    space = " " if found.start() and found.string[found.start() - 1].isdigit() else ""
    return space + VULGAR[found["vulgar"]]


def _decade(found: re.Match[str]) -> str:
    if found["short"]:
        return TENS[int(found["short"])]
    century, tens = found["century"], int(found["tens"])
    return "2 thousands" if (century, tens) == ("20", 0) else f"{century} {TENS[tens]}"


def _digits(found: re.Match[str]) -> str:
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", found[0]))


def _digits_by_four(found: re.Match[str]) -> str:
    return ", ".join(" ".join(found[0][at : at + 4]) for at in range(0, len(found[0]), 4))


def _formula(found: re.Match[str]) -> str:
    """CO2, which espeak-ng reads as a word and a number."""
    return f"{'.'.join(found['letters'])} {found['digits']}"


def _roman(found: re.Match[str]) -> str:
    """Of a thing that is counted, or of a king; one letter after a name may be anything."""
    before, number = found["before"], ROMAN.get(found["roman"])
    if number is None:
        return found[0]
    if re.fullmatch(NUMBERED, before):
        return f"{before} {number}"
    return f"{before} the {_ordinal(number)}" if len(found["roman"]) > 1 else found[0]


def _letters(found: re.Match[str]) -> str:
    """U.S. as U.S, which espeak-ng spells and does not take for the end of a clause."""
    return found[0].rstrip(".") + _stop(found)


_DAY, _YEAR = r"(?P<day>\d{1,2})", r"(?P<year>1[1-9]\d\d|20\d\d)"
_WHOLE = r"\d+(?:,\d+)*"
_NUMBER = rf"(?P<number>{_WHOLE}(?:\.\d+)?)"

_BEFORE_DATES: tuple[Rule, ...] = (
    _rule(r"\bhttps?://", ""),
    _rule(rf"(?:(?<=\d)\s?)?(?P<vulgar>[{''.join(VULGAR)}])", _vulgar),
    _rule(r"\be\.\s?g\.,?", "for example,", re.IGNORECASE),
    _rule(r"\bi\.\s?e\.,?", "that is,", re.IGNORECASE),
    _rule(r"(?P<name>\b[A-Z][a-z]+) Dr\.(?=\s+[a-z]|,|$)", lambda found: f"{found['name']} Drive{_stop(found)}"),
    _rule(rf"\b(?P<title>{_any(TITLES)})\.(?=\s)", lambda found: TITLES[found["title"]]),
    _rule(r"\bPh\.?\s?D\b\.?", lambda found: f"PHD{_stop(found)}"),
    _rule(r"(?P<name>\b[A-Z][a-z]+|\d(?:st|nd|rd|th)) St\.?(?=\W|$)(?!\s+[A-Z][a-z]+'s)",
          lambda found: f"{found['name']} Street{_stop(found)}"),
    _rule(r"\bSt\.(?=\s+[A-Z])", "Saint"),
    _rule(rf"\b(?P<counter>{_any(COUNTERS)})\.\s*(?=\d|[IVX]+\b)",
          lambda found: f"{_cased(found, COUNTERS[found['counter'].lower()])} ", re.IGNORECASE),
    _rule(r"\bNo\.\s*(?=\d)", "Number "),  # "no." may be a whole answer
    _rule(r"\bNos\.\s*(?=\d)", "Numbers "),
    _rule(r"#\s?(?=\d)", "number "),
    _rule(r"№\s?(?=\d)", "number "),
    _rule(rf"(?<![\w.@])(?P<word>{_any(WORDS)})\.(?!\w)",
          lambda found: _cased(found, WORDS[found["word"].lower()]) + _stop(found), re.IGNORECASE),
    _rule(r"\bvs\b", "versus"),
    _rule(r"\bw/o\b", "without"),
    _rule(r"\bw/(?=\s)", "with"),
    _rule(rf"\b(?P<short>{_any(MONTHS)})t?\.(?=\s*\d)", lambda found: MONTHS[found["short"].lower()],
          re.IGNORECASE),
    _rule(rf"\b(?P<short>{_any(DAYS)})\.(?=,?\s+(?:(?:{'|'.join(MONTHS.values())})\b|\d))",
          lambda found: DAYS[found["short"]]),
    _rule(r"\b(?:[A-Z]\.){2,}(?![A-Za-z])", _letters),
    _rule(r"\b(?P<first>[A-HJ-Z])\.(?=\s+[A-Z])", lambda found: found["first"] + _stop(found)),
    _rule(rf"\b(?P<before>{NUMBERED}|[A-Z][a-z]+) (?P<roman>[IVX]{{1,5}})\b(?!\.\w)(?!')", _roman),
)  # fmt: skip

_SLASHED_MONTH_FIRST = _rule(r"\b(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})\b", _numeric_date)
_SLASHED_DAY_FIRST = _rule(r"\b(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{4})\b", _numeric_date)

_FROM_DATES_ON: tuple[Rule, ...] = (
    _rule(r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b", _numeric_date),
    _rule(rf"\b{MONTH} {_DAY}\b(?![:,.]\d)", _day_of_month),
    _rule(rf"\b{_DAY} (?={MONTH})", lambda found: f"{_ordinal(int(found['day']))} of "),
    _rule(rf"(?P<before>\b{MONTH},? (?:\d{{1,2}}(?:st|nd|rd|th),? )?){_YEAR}\b(?![,.]\d)",
          lambda found: found["before"] + _year(found["year"])),
    _rule(r"\b(?P<century>1[1-9]|20)(?P<tens>\d)0'?s\b"
          r"|(?:(?<=\bthe )|(?<=\bearly )|(?<=\blate )|(?<=\bmid-)|(?<!\w)')(?P<short>[2-9])0'?s\b", _decade),
    _rule(rf"(?P<before>\b(?:in|since|by|until|till|before|after|during|from|year|of|summer|winter|spring|fall|autumn)\s)"
          rf"{_YEAR}\b(?![,.%:]\d)(?!\s+(?:{_any(UNITS)}|people|men|women|years|times|dollars|miles|pages))",
          lambda found: found["before"] + _year(found["year"]), re.IGNORECASE),
    _rule(r"\b(?P<year>1[1-9]\d\d|20\d\d)\s?[-–]\s?(?P<to>1[1-9]\d\d|20\d\d)\b",
          lambda found: f"{_year(found['year'])} to {_year(found['to'])}"),
    _rule(r"\b(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?::[0-5]\d)?(?:\s?(?P<half>[aApP])(?:m\b|M\b|\.\s?[mM]\.?))?",
          _time),
    _rule(r"(?P<hour>\b\d{1,2})\s?(?P<half>[aApP])(?:\.\s?[mM]\.|[mM]\b\.?)",
          lambda found: f"{found['hour']} {found['half'].upper()}M{_stop(found)}"),
    _rule(r"(?:\+?1[-. ])?(?:\(\d{3}\) ?|\b\d{3}[-.])\d{3}[-.]\d{4}\b|\b\d{3}-\d{4}\b", _digits),
    _rule(rf"(?P<us>\bUS)?(?P<sign>[{''.join(CURRENCIES)}])\s?(?:(?P<whole>{_WHOLE})|(?=\.\d))(?:\.(?P<part>\d+))?"
          rf"(?:\s?[-–]\s?(?P=sign)?(?P<to>{_WHOLE}(?:\.\d+)?))?"
          rf"(?:\s?(?P<scale>hundred|thousand|million|billion|trillion|{_any(SCALES)})\b)?", _money),
    _rule(r"\b(?P<feet>\d)'\s?(?P<inches>\d{1,2})\"", r"\g<feet> foot \g<inches>"),
    _rule(rf"(?<![\w.,]){_NUMBER}[ -]?(?P<unit>(?i:{_any(UNITS)}|° [CF])|{_any(LETTER_UNITS)})\b(?P<stop>\.?)"
          r"(?!\w)(?!')", _unit),
    _rule(r"(?<![\w.])(?:(?P<whole>\d+) )?(?P<over>\d+)/(?P<under>\d+)\b(?!/)", _fraction),
    _rule(r"(?<=[=(+*/])\s?-(?=\d)", " minus "),
    _rule(r"(?P<from>\d)\s?-\s?(?=[\d.,]+\s?=)", r"\g<from> minus "),
    _rule(r"²", " squared"),
    _rule(r"³", " cubed"),
    _rule(r"\b(?P<letters>[A-Z]{2,3})(?P<digits>\d{1,2})\b", _formula),
    _rule(r"\b\d{12,}\b", _digits_by_four),
    _rule(r"\b24/7\b", "24 7"),
    _rule(r"(?<=\d)\s?[x×]\s?(?=\d)", " by "),
    _rule(r"(?<=\d)\s?\*\s?(?=\d)", " times "),
    _rule(rf"(?<![\d.,-])(?P<low>{_WHOLE}(?:\.\d+)?)\s?[-–]\s?(?P<high>{_WHOLE}(?:\.\d+)?)(?![\d-]|\s?=)",
          r"\g<low> to \g<high>"),
    _rule(r"(?P<from>[AP]M|o'clock)\s?[-–]\s?(?=\d)", r"\g<from> to "),
    _rule(r"(?<=[\w)])\s<\s(?=[\w(])", " is less than "),
    _rule(r"(?<=[\w)])\s>\s(?=[\w(])", " is greater than "),
    _rule(r"\b\d+(?:\.\d+){2,}\b", lambda found: found[0].replace(".", " point ")),
    _rule(r"(?<![\w.])\.(?=\d)", "point "),
)  # fmt: skip

_RULES_MONTH_FIRST = (*_BEFORE_DATES, _SLASHED_MONTH_FIRST, *_FROM_DATES_ON)
_RULES_DAY_FIRST = (*_BEFORE_DATES, _SLASHED_DAY_FIRST, *_FROM_DATES_ON)
