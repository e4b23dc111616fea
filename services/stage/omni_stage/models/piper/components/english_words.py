"""The words behind the rules of `english`: what stands for what. Keys without case are in small letters."""

from __future__ import annotations

from collections.abc import Mapping

MONTHS: Mapping[str, str] = {
    name[:3].lower(): name
    for name in (
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    )
}  # fmt: skip
DAYS: Mapping[str, str] = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
MONTH = r"(?P<month>January|February|March|April|May|June|July|August|September|October|November|December)"

# Before a name: a full stop after them never ends a sentence.
TITLES: Mapping[str, str] = {
    "Dr": "Doctor", "Mr": "Mr", "Mrs": "Mrs", "Ms": "Ms", "Prof": "Professor", "Rev": "Reverend",
    "Sgt": "Sergeant", "Lt": "Lieutenant", "Col": "Colonel", "Capt": "Captain", "Gen": "General", "Sen": "Senator",
    "Gov": "Governor", "Rep": "Representative", "Hon": "Honorable", "Mt": "Mount", "Ft": "Fort",
}  # fmt: skip
# Before a number.
COUNTERS: Mapping[str, str] = {
    "vol": "volume", "fig": "figure", "ch": "chapter", "sec": "section",
    "p": "page", "pp": "pages", "ext": "extension", "pt": "part", "apt": "apartment",
}  # fmt: skip
# Anywhere; a full stop after them ends the sentence where a new one seems to begin.
WORDS: Mapping[str, str] = {
    "etc": "et cetera", "inc": "Incorporated", "ltd": "Limited", "co": "Company", "corp": "Corporation",
    "jr": "Junior", "sr": "Senior", "ave": "Avenue", "blvd": "Boulevard", "rd": "Road", "vs": "versus",
    "approx": "approximately", "dept": "department", "est": "established", "tel": "telephone", "incl": "including",
    "govt": "government", "univ": "University", "assn": "Association", "bros": "Brothers",
}  # fmt: skip
UNITS: Mapping[str, tuple[str, str]] = {
    "km/h": ("kilometer per hour", "kilometers per hour"), "m/s": ("meter per second", "meters per second"),
    "km": ("kilometer", "kilometers"), "cm": ("centimeter", "centimeters"), "mm": ("millimeter", "millimeters"),
    "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"),
    "ml": ("milliliter", "milliliters"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"), "ft": ("foot", "feet"),
    "mi": ("mile", "miles"), "mph": ("mile per hour", "miles per hour"),
    "hz": ("hertz", "hertz"), "khz": ("kilohertz", "kilohertz"), "mhz": ("megahertz", "megahertz"),
    "ghz": ("gigahertz", "gigahertz"), "kb": ("kilobyte", "kilobytes"), "mb": ("megabyte", "megabytes"),
    "gb": ("gigabyte", "gigabytes"), "tb": ("terabyte", "terabytes"), "kw": ("kilowatt", "kilowatts"),
    "kwh": ("kilowatt hour", "kilowatt hours"),
    "ms": ("millisecond", "milliseconds"), "min": ("minute", "minutes"), "mins": ("minute", "minutes"),
    "sec": ("second", "seconds"), "secs": ("second", "seconds"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"),
    "°c": ("degree Celsius", "degrees Celsius"), "°f": ("degree Fahrenheit", "degrees Fahrenheit"),
}  # fmt: skip
# One letter in the other case means something else: 5G, 3M.
LETTER_UNITS: Mapping[str, tuple[str, str]] = {
    "m": ("meter", "meters"), "g": ("gram", "grams"), "l": ("liter", "liters"), "L": ("liter", "liters"),
    "W": ("watt", "watts"), "V": ("volt", "volts"),
}  # fmt: skip
CURRENCIES: Mapping[str, tuple[str, str, str, str]] = {
    "$": ("dollar", "dollars", "cent", "cents"), "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"), "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}  # fmt: skip
SCALES: Mapping[str, str] = {
    "K": "thousand", "k": "thousand", "M": "million", "m": "million", "B": "billion", "bn": "billion", "T": "trillion",
}  # fmt: skip
FRACTIONS: Mapping[tuple[str, str], str] = {
    ("1", "2"): "one half", ("1", "3"): "one third", ("2", "3"): "two thirds", ("1", "4"): "one quarter",
    ("3", "4"): "three quarters", ("1", "5"): "one fifth", ("1", "8"): "one eighth", ("1", "10"): "one tenth",
}  # fmt: skip
VULGAR: Mapping[str, str] = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
TENS = (
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
ROMAN: Mapping[str, int] = {
    numeral: number
    for number, numeral in enumerate(
        ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII",
         "XVIII", "XIX", "XX"), start=1,
    )
}  # fmt: skip
NUMBERED = (
    r"World War|War|Chapter|Part|Volume|Act|Phase|Type|Section|Book|Class|Level|Appendix|Episode|Super Bowl|Grade"
)
# Words that begin a sentence far more often than they follow an abbreviation as a name.
STARTERS = (
    "The|A|An|It|He|She|We|They|I|You|This|That|These|Those|There|Then|But|And|So|In|On|At|As|If|When|While|My|His|Her"
    "|Our|Their|Its|What|Who|Where|Why|How|No|Yes|Please|For|From|After|Before|All|Some|Every|Now"
)
