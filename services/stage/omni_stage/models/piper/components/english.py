"""What English text leaves unsaid, said: espeak-ng reads numbers and words well, but not money, dates or "Dr.".

One table of rules, applied in its order. What a rule makes is still read by espeak-ng, so digits may stay digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MONTHS: Mapping[str, str] = {
    name[:3].lower(): name
    for name in (
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    )
}  # fmt: skip
_DAYS: Mapping[str, str] = {
    "mon": "Monday", "tue": "Tuesday", "tues": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "thur": "Thursday",
    "thurs": "Thursday", "fri": "Friday", "sat": "Saturday", "sun": "Sunday",
}  # fmt: skip
_MONTH = r"(?P<month>January|February|March|April|May|June|July|August|September|October|November|December)"

# Before a name: a full stop after them never ends a sentence.
_TITLES: Mapping[str, str] = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missis", "Ms": "Miz", "Prof": "Professor", "Rev": "Reverend",
    "Sgt": "Sergeant", "Lt": "Lieutenant", "Col": "Colonel", "Capt": "Captain", "Gen": "General", "Sen": "Senator",
    "Gov": "Governor", "Rep": "Representative", "Hon": "Honorable", "Mt": "Mount",
}  # fmt: skip
# Before a number.
_COUNTERS: Mapping[str, str] = {
    "no": "number", "nos": "numbers", "vol": "volume", "fig": "figure", "ch": "chapter", "sec": "section",
    "p": "page", "pp": "pages", "ext": "extension", "art": "article", "pt": "part",
}  # fmt: skip
# Anywhere; a full stop after them ends the sentence where a new one seems to begin.
_WORDS: Mapping[str, str] = {
    "etc": "et cetera", "inc": "Incorporated", "ltd": "Limited", "co": "Company", "corp": "Corporation",
    "jr": "Junior", "sr": "Senior", "ave": "Avenue", "blvd": "Boulevard", "rd": "Road", "vs": "versus",
    "approx": "approximately", "dept": "department", "est": "established", "tel": "telephone", "incl": "including",
    "govt": "government", "univ": "University", "assn": "Association", "bros": "Brothers", "apt": "apartment",
}  # fmt: skip
_UNITS: Mapping[str, tuple[str, str]] = {
    "km/h": ("kilometer per hour", "kilometers per hour"), "m/s": ("meter per second", "meters per second"),
    "km": ("kilometer", "kilometers"), "cm": ("centimeter", "centimeters"), "mm": ("millimeter", "millimeters"),
    "m": ("meter", "meters"), "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"), "ml": ("milliliter", "milliliters"), "l": ("liter", "liters"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"), "ft": ("foot", "feet"),
    "mi": ("mile", "miles"), "mph": ("mile per hour", "miles per hour"), "sq": ("square", "square"),
    "hz": ("hertz", "hertz"), "khz": ("kilohertz", "kilohertz"), "mhz": ("megahertz", "megahertz"),
    "ghz": ("gigahertz", "gigahertz"), "kb": ("kilobyte", "kilobytes"), "mb": ("megabyte", "megabytes"),
    "gb": ("gigabyte", "gigabytes"), "tb": ("terabyte", "terabytes"), "kw": ("kilowatt", "kilowatts"),
    "kwh": ("kilowatt hour", "kilowatt hours"), "w": ("watt", "watts"), "v": ("volt", "volts"),
    "ms": ("millisecond", "milliseconds"), "min": ("minute", "minutes"), "mins": ("minute", "minutes"),
    "sec": ("second", "seconds"), "secs": ("second", "seconds"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"),
    "°c": ("degree Celsius", "degrees Celsius"), "°f": ("degree Fahrenheit", "degrees Fahrenheit"),
}  # fmt: skip
_CURRENCIES: Mapping[str, tuple[str, str, str, str]] = {
    "$": ("dollar", "dollars", "cent", "cents"), "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"), "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}  # fmt: skip
_FRACTIONS: Mapping[tuple[str, str], str] = {
    ("1", "2"): "one half", ("1", "3"): "one third", ("2", "3"): "two thirds", ("1", "4"): "one quarter",
    ("3", "4"): "three quarters", ("1", "5"): "one fifth", ("1", "8"): "one eighth", ("1", "10"): "one tenth",
}  # fmt: skip
_VULGAR: Mapping[str, str] = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
_TENS = (
    "hundreds",
    "tens",
    "twenties",
    "thirties",
    "forties",
    "fifties",
    "sixties",
    "seventies",
    "eighties",
    "nineties",
)
_ROMAN: Mapping[str, int] = {
    numeral: number
    for number, numeral in enumerate(
        ("II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII",
         "XVIII", "XIX", "XX"), start=2,
    )
}  # fmt: skip
_NUMBERED = (
    r"World War|War|Chapter|Part|Volume|Act|Phase|Type|Section|Book|Class|Level|Appendix|Episode|Super Bowl|Grade"
)
# Words that begin a sentence far more often than they follow an abbreviation as a name.
_STARTERS = (
    "The|A|An|It|He|She|We|They|I|You|This|That|These|Those|There|Then|But|And|So|In|On|At|As|If|When|While|My|His|Her"
    "|Our|Their|Its|What|Who|Where|Why|How|No|Yes|Please|For|From|After|Before|All|Some|Every|Now"
)
_ENDS_HERE = re.compile(rf"""["')]*(\s*$|\s*\n|\s+["'(]*({_STARTERS})\b)""")


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
    """The full stop of an abbreviation, where it ends the sentence too."""
    return "." if _ENDS_HERE.match(found.string, found.end()) else ""


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
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return _date(found["year"], list(_MONTHS.values())[month - 1], found["day"])


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
    one, many, small_one, small_many = _CURRENCIES[found["sign"]]
    whole, part, scale = found["whole"], found["part"], found["scale"]
    if scale or (part and len(part) != 2):
        amount = f"{whole}.{part}" if part else whole
        return f"{amount} {scale} {many}" if scale else f"{amount} {many}"
    said = [f"{whole} {one if whole == '1' else many}"] if int(whole.replace(",", "")) or not int(part or 0) else []
    if int(part or 0):
        said.append(f"{int(part)} {small_one if int(part) == 1 else small_many}")
    return " and ".join(said)


def _unit(found: re.Match[str]) -> str:
    one, many = _UNITS[found["unit"].lower().replace(" ", "")]
    return f"{found['number']} {one if found['number'] == '1' else many}{_stop(found) if found['stop'] else ''}"


def _fraction(found: re.Match[str]) -> str:
    said = _FRACTIONS.get((found["over"], found["under"]))
    if said is None:
        return found[0]
    return f"{found['whole']} and {said.replace('one ', 'a ', 1)}" if found["whole"] else said


def _decade(found: re.Match[str]) -> str:
    century, tens = found["century"] or "", int(found["tens"])
    return f"{century} {_TENS[tens]}".strip()


def _digits(found: re.Match[str]) -> str:
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", found[0]))


def _roman(found: re.Match[str]) -> str:
    number = _ROMAN[found["roman"]]
    return (
        f"{found['before']} {number}"
        if re.fullmatch(_NUMBERED, found["before"])
        else (f"{found['before']} the {_ordinal(number)}")
    )


def _letters(found: re.Match[str]) -> str:
    """U.S. as U.S, which espeak-ng spells and does not take for the end of a clause."""
    return found[0].rstrip(".") + _stop(found)


_DAY, _YEAR = r"(?P<day>\d{1,2})", r"(?P<year>1[1-9]\d\d|20\d\d)"
_NUMBER = r"(?P<number>\d[\d,]*(?:\.\d+)?)"

_BEFORE_DATES: tuple[Rule, ...] = (
    _rule(r"\bhttps?://", ""),
    _rule(rf"[{''.join(_VULGAR)}]", lambda found: f" {_VULGAR[found[0]]}"),
    _rule(r"\be\.\s?g\.,?", "for example,", re.IGNORECASE),
    _rule(r"\bi\.\s?e\.,?", "that is,", re.IGNORECASE),
    _rule(rf"\b(?P<title>{_any(_TITLES)})\.(?=\s)", lambda found: _TITLES[found["title"]]),
    _rule(r"\bPh\.?\s?D\b\.?", lambda found: f"PHD{_stop(found)}"),
    _rule(r"(?P<name>\b[A-Z][a-z]+|\d(?:st|nd|rd|th)) St\.?(?=\W|$)(?!\s+[A-Z][a-z]+'s)",
          lambda found: f"{found['name']} Street{_stop(found)}"),
    _rule(r"\bSt\.(?=\s+[A-Z])", "Saint"),
    _rule(rf"\b(?P<counter>{_any(_COUNTERS)})\.\s*(?=\d)", lambda found: f"{_COUNTERS[found['counter'].lower()]} ",
          re.IGNORECASE),
    _rule(r"#\s?(?=\d)", "number "),
    _rule(r"№\s?(?=\d)", "number "),
    _rule(rf"\b(?P<word>{_any(_WORDS)})\.", lambda found: _WORDS[found["word"].lower()] + _stop(found), re.IGNORECASE),
    _rule(r"\bvs\b", "versus"),
    _rule(r"\bw/o\b", "without"),
    _rule(r"\bw/(?=\s)", "with"),
    _rule(rf"\b(?P<short>{_any(_MONTHS)})t?\.(?=\s*\d)", lambda found: _MONTHS[found["short"].lower()],
          re.IGNORECASE),
    _rule(rf"\b(?P<short>{_any(_DAYS)})\.(?=[\s,])", lambda found: _DAYS[found["short"].lower()] + _stop(found),
          re.IGNORECASE),
    _rule(r"\b(?:[A-Z]\.){2,}(?![A-Za-z])", _letters),
    _rule(r"\b(?P<first>[A-HJ-Z])\.(?=\s+[A-Z])", lambda found: found["first"] + _stop(found)),
    _rule(r"\b(?P<before>World War|[A-Z][a-z]+) (?P<roman>[IVX]{2,5}|V|X)\b(?!\.\w)(?!')",
          lambda found: _roman(found) if found["roman"] in _ROMAN else found[0]),
)  # fmt: skip

_SLASHED_MONTH_FIRST = _rule(r"\b(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})\b", _numeric_date)
_SLASHED_DAY_FIRST = _rule(r"\b(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{4})\b", _numeric_date)

_FROM_DATES_ON: tuple[Rule, ...] = (
    _rule(r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b", _numeric_date),
    _rule(rf"\b{_MONTH} {_DAY}\b(?![:,.]\d)", _day_of_month),
    _rule(rf"\b{_DAY} (?={_MONTH})", lambda found: f"{_ordinal(int(found['day']))} of "),
    _rule(rf"(?P<before>\b{_MONTH},? (?:\d{{1,2}}(?:st|nd|rd|th),? )?){_YEAR}\b(?![,.]\d)",
          lambda found: found["before"] + _year(found["year"])),
    _rule(r"'?\b(?P<century>1[1-9]|20)?(?P<tens>\d)0'?s\b", _decade),
    _rule(rf"(?P<before>\b(?:in|since|by|until|till|before|after|during|from|year|of|summer|winter|spring|fall|autumn)\s)"
          rf"{_YEAR}\b(?![,.%:]\d)(?!\s+(?:{_any(_UNITS)}|people|men|women|years|times|dollars|miles|pages))",
          lambda found: found["before"] + _year(found["year"]), re.IGNORECASE),
    _rule(r"\b(?P<year>1[1-9]\d\d|20\d\d)\s?[-–]\s?(?P<to>1[1-9]\d\d|20\d\d)\b",
          lambda found: f"{_year(found['year'])} to {_year(found['to'])}"),
    _rule(r"\b(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?::[0-5]\d)?(?:\s?(?P<half>[aApP])(?:m\b|M\b|\.\s?[mM]\.?))?",
          _time),
    _rule(r"(?P<hour>\b\d{1,2})\s?(?P<half>[aApP])(?:\.\s?[mM]\.|[mM]\b\.?)",
          lambda found: f"{found['hour']} {found['half'].upper()}M{_stop(found)}"),
    _rule(r"(?:\+?1[-. ])?(?:\(\d{3}\) ?|\b\d{3}[-.])\d{3}[-.]\d{4}\b|\b\d{3}-\d{4}\b", _digits),
    _rule(rf"(?P<sign>[{''.join(_CURRENCIES)}])\s?(?P<whole>\d[\d,]*)(?:\.(?P<part>\d+))?"
          r"(?:\s(?P<scale>hundred|thousand|million|billion|trillion)\b)?", _money),
    _rule(r"\b(?P<feet>\d)'\s?(?P<inches>\d{1,2})\"", r"\g<feet> foot \g<inches>"),
    _rule(rf"(?<![\w.]){_NUMBER}[ -]?(?P<unit>{_any(_UNITS)}|° [CF])\b(?P<stop>\.?)(?!\w)(?!')", _unit, re.IGNORECASE),
    _rule(r"(?<![\w.])(?:(?P<whole>\d+) )?(?P<over>\d+)/(?P<under>\d+)\b(?!/)", _fraction),
    _rule(r"\b24/7\b", "24 7"),
    _rule(r"(?<=\d)\s?[x×]\s?(?=\d)", " by "),
    _rule(r"(?<=\d)\s?\*\s?(?=\d)", " times "),
    _rule(r"(?<![\d-])(?P<low>\d[\d,.]*)\s?[-–]\s?(?P<high>\d[\d,]*(?:\.\d+)?)(?![\d-]|\s?=)", r"\g<low> to \g<high>"),
    _rule(r"(?<![\w.])\.(?=\d)", "point "),
)  # fmt: skip

_RULES_MONTH_FIRST = (*_BEFORE_DATES, _SLASHED_MONTH_FIRST, *_FROM_DATES_ON)
_RULES_DAY_FIRST = (*_BEFORE_DATES, _SLASHED_DAY_FIRST, *_FROM_DATES_ON)
