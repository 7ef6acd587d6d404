"""What cells look like: dates, addresses, names of people, numbers of records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MANY = 0.8
_LOOKED_AT = 5_000

_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)? ?(Z|[+-]\d{2}:?\d{2})?",
        r"\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( \d{1,2}:\d{2}(:\d{2})?)?( [AP]M)?",
        r"\d{1,2}[- .]{1,2}[A-Za-zäéû]{3,9}[-, .]{1,2}(\d{4}|\d{2})",
        r"[A-Z][a-z]{2,8}\.? \d{1,2},? \d{4}",
    )
)
_COMPACT_DATE = re.compile(r"(18|19|20|21)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
_PHONE = re.compile(r"(?=(?:\D*\d){7,15}\D*$)(\+|00|\(?0)?[\d ()/.-]{7,20}")
_PHONE_MARK = re.compile(r"^\+|^\(?0\d|\d[ ()/-]+\d")
_SSN = re.compile(r"\d{3}-\d{2}-\d{4}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UID = re.compile(r"\d+(\.\d+){4,}")
_URL = re.compile(r"(https?://|www\.)\S+")
_IP = re.compile(r"(\d{1,3}\.){3}\d{1,3}")
_FILE = re.compile(r"\S.*\.(png|jpe?g|dcm|dicom|nii|nii\.gz|tiff?|svs|csv|txt|pdf|mha|mhd|bmp|gif|edf|wav|npz?)", re.I)
_STREET = re.compile(
    r"(\d+[a-z]?,? +.*\b(street|st|road|rd|avenue|ave|lane|ln|drive|dr|way|court|ct|close|square|sq|boulevard|blvd|place"
    r"|terrace|crescent)\b\.?.*)|(.*(stra(ss|ß)e|str\.|weg|platz|allee|gasse|rue|calle|via)\b.* \d+[a-z]?(,.*)?)"
    r"|(\d+,? (rue|avenue|boulevard|calle|via) .*)",
    re.I,
)
_TITLE = re.compile(
    r"(dr|prof|mr|mrs|ms|miss|herr|frau|mme|dott|med)\.?( [a-z]+\.)* +[A-ZÄÖÜÉ][\w'\u2019.-]*( .*)?", re.I
)
_PERSON = re.compile(
    r"[A-ZÄÖÜÉÈÇ][\w'\u2019-]+(\^|, ?| )([A-ZÄÖÜÉÈÇ][\w'\u2019-]*\.?)([ ^-][A-ZÄÖÜÉÈÇ]?[\w'\u2019-]*\.?){0,3}"
)
_PLACE = re.compile(
    r"\b(hospital|clinic|cent(er|re)|university|ward|department|school|institute|infirmary|st|saint|street|avenue"
    r"|syndrome|disease|health|care|city|county|carcinoma)\b",
    re.I,
)
_NUMBERED = re.compile(r"[A-Za-z]{0,8}[-_/ ]?[A-Za-z0-9]{0,4}[-_/ ]?\d{3,}[A-Za-z]?")
_INTERVAL = re.compile(
    r"[\[(]?\s*(-?\d+(?:\.\d+)?)\s*(?:-|\u2013|to|,|;|\.\.)\s*(-?\d+(?:\.\d+)?)\s*(?:[\])]|years|y)?|[<>≤≥]=?\s*(-?\d+(?:\.\d+)?)"
    r"|(-?\d+(?:\.\d+)?)\s*\+"
)
_UNIT = re.compile(r"(-?\d+(?:\.\d+)?)\s*([A-Za-zµ°%][A-Za-zµ°%/.*^0-9]{0,9})")
_ICD = re.compile(r"[A-Z]?\d{2,3}(\.?\d{1,3})?[A-Z]?|[VE]\d{2,4}(\.\d{1,2})?|[A-TV-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?")

_GIVEN = _words(
    """ada adam adele agnes ahmed aisha alan albert alejandro alex alexander alfred ali alice alina amanda amelie amina
    amy ana anders andrea andreas andrew angela anita anja ann anna anne annie anthony antonio anton arjun arthur astrid
    barbara beatrice ben benjamin bernard bernd bert birgit bruno camille carl carla carlos carmen carol caroline
    catherine cecilia charles charlotte chen chiara chris christian christina christine christopher claire clara claudia
    clemens daniel daniela david deborah denis diana diego dieter dirk dominik donald dora dorothy edith edward elena eli
    elias elisa elisabeth elizabeth ella ellen elsa emil emily emma enzo eric erik erika ernst esther eva fabian fatima
    felix fernando fiona florian frances francesco francis frank franz fred frederic fritz gabriel gabriele george georg
    gerald gerhard gertrud giulia giuseppe gloria grace greta guido gustav hanna hannah hans harald harry hassan heidi
    heike heinz helen helena helga henri henry herbert hugo ian ibrahim ida ines inga ingrid irene iris isabel isabella
    ivan jack jacob jakob james jan jana jane janet jean jennifer jens jessica joan joanna johan johann john jonas jorge
    jose joseph juan judith julia julian juliane julie jutta karen karin karl katharina katherine kathrin kevin klaus
    kurt lars laura lea lena leo leon leonard li lina linda lisa louis louise luca lucas lucia lucy ludwig luis lukas
    manuel marc marco margaret maria marianne marie mario marion mark markus martha martin martina mary mateo matthew
    matthias max maya mehmet mei melanie michael michaela michel mia miguel mohamed mohammed monika muhammad nadia nancy
    natalie nicholas nicole nils nina noah nora norbert olaf olga oliver olivia omar oscar otto pablo pamela patricia
    patrick paul paula pauline pedro peter petra philip philipp pierre priya rachel rafael raj ralf rebecca renate rene
    richard rita robert roberto roland rosa rose ruth ryan sabine samuel sandra sara sarah sebastian sergio silvia simon
    sofia sonja sophia sophie stefan stefanie stephen steven susan susanne sven sylvia tanja teresa theo theresa thomas
    tim timothy tobias tom ulrich ursula uwe vera veronica victor victoria vincent viola walter wei werner wilhelm
    william wolfgang xavier yan yusuf yves zoe"""
)


def share(texts: Iterable[str], test: Callable[[str], object]) -> float:
    """The share of texts that pass a test; 0 of nothing."""
    tried = [bool(test(text)) for text in texts]
    return sum(tried) / len(tried) if tried else 0.0


def is_date(text: str) -> bool:
    """Whether a cell is a calendar date, with or without a time of day."""
    return any(pattern.fullmatch(text) for pattern in _DATES)


def dates(texts: list[str], *, dated: bool) -> bool:
    """Whether nearly all cells are dates; eight digits count only below a name that announces a date."""
    return share(texts, lambda t: is_date(t) or (dated and _COMPACT_DATE.fullmatch(t))) >= 0.95


def year(text: str) -> int | None:
    """The year of a date with four digits for it."""
    found = re.search(r"(?<!\d)(1[5-9]|2\d)\d{2}(?!\d)", text) or _COMPACT_DATE.fullmatch(text)
    return int(found[0][:4]) if found else None


def identifier(texts: list[str]) -> tuple[str, float] | None:
    """What identifier of a person or a record the different values are, and the share of them that are; None for none.

    At most 5000 of the values are looked at.
    """
    texts = texts[:_LOOKED_AT]
    for what, pattern in (
        ("e-mail address", _EMAIL),
        ("national number", _SSN),
        ("UUID", _UUID),
        ("DICOM UID", _UID),
        ("web address", _URL),
        ("network address", _IP),
        ("file name", _FILE),
        ("address", _STREET),
    ):
        found = share(texts, pattern.fullmatch)
        if found >= _MANY:
            return what, found
    phones = share(
        texts, lambda t: _PHONE.fullmatch(t) and _PHONE_MARK.search(t) and not is_date(t) and not _INTERVAL.fullmatch(t)
    )
    if phones >= _MANY:
        return "telephone number", phones
    titled = share(texts, _TITLE.fullmatch)
    people = share(texts, lambda t: _PERSON.fullmatch(t) and not _PLACE.search(t))
    given = share(texts, lambda t: not _GIVEN.isdisjoint(re.split(r"[\s,.^-]+", t.lower())))
    if titled >= _MANY:
        return "name of a doctor" if share(
            texts, re.compile(r"(dr|prof)\b.*", re.I).fullmatch
        ) > 0.5 else "personal name", titled
    if people >= _MANY and given >= 0.2 and len(texts) > 2:
        return "personal name", people
    return None


def numbered(texts: list[str]) -> bool:
    """Whether values look like record numbers: letters that repeat, then digits."""
    return share(texts[:_LOOKED_AT], _NUMBERED.fullmatch) >= 0.95


def icd(texts: list[str]) -> bool:
    """Whether values look like codes of the International Classification of Diseases."""
    lettered = [text for text in texts[:_LOOKED_AT] if text[:1].isalpha()]
    return share(lettered, _ICD.fullmatch) >= 0.95 and share(texts[:_LOOKED_AT], _ICD.fullmatch) >= 0.95


def free_text(texts: list[str]) -> bool:
    """Whether values are sentences: five words or more on average."""
    texts = texts[:_LOOKED_AT]
    return bool(texts) and sum(len(text.split()) for text in texts) / len(texts) >= 5


def mentions_person(text: str) -> bool:
    """Whether a sentence holds a title with a name, or a capitalised common given name with a name behind it."""
    if re.search(r"\b(Dr|Prof|Mr|Mrs|Ms|Herr|Frau)\.? +[A-ZÄÖÜÉ][a-zäöüéß]+", text):
        return True
    return any(first.lower() in _GIVEN for first in re.findall(r"\b([A-Z][a-zé]+) [A-ZÄÖÜÉ][a-zäöüéß]+", text))


def several(texts: list[str]) -> bool:
    """Whether cells list several values (`Mass|Nodule`), each of which also stands alone or in other lists."""
    listed = [text for text in texts[:_LOOKED_AT] if "|" in text or ";" in text]
    if len(listed) < 0.2 * len(texts[:_LOOKED_AT]) or len(listed) < 5:
        return False
    parts = {part.strip() for text in texts[:_LOOKED_AT] for part in re.split(r"[|;]", text)}
    return len(parts) < 0.7 * len(texts[:_LOOKED_AT])


def unit(texts: list[str]) -> str | None:
    """The one unit that nearly all numbers carry (`Y` of `060Y`), None where they do not."""
    found = [_UNIT.fullmatch(text) for text in texts[:_LOOKED_AT]]
    units = {match[2] for match in found if match}
    hits = sum(match is not None for match in found)
    if not found or hits < 0.95 * len(found) or len(found) < 3:
        return None
    common = max(units, key=lambda u: sum(m is not None and m[2] == u for m in found))
    return common if sum(m is not None and m[2] == common for m in found) >= 0.95 * len(found) else None


_SCALES = tuple(
    tuple(scale.split())
    for scale in (
        "none minimal mild moderate severe",
        "absent mild moderate severe critical",
        "verylow low medium high veryhigh",
        "low intermediate high",
        "low normal high",
        "poor fair good verygood excellent",
        "never rarely sometimes often always",
        "i ii iii iv v",
        "i iia iib iiia iiib iiic iv",
        "small medium large",
        "primary secondary tertiary",
        "underweight normal overweight obese",
        "no slight some strong",
    )
)


def order(levels: list[str]) -> list[str] | None:
    """The levels from the lowest to the highest where they are intervals or words of a known scale; None otherwise.

    Intervals (`[70-80)`, `<30`, `>=90`) and scales need three levels or more.
    """
    if len(levels) < 3:
        return None
    bounds = [_INTERVAL.fullmatch(level) for level in levels]
    if all(bounds):
        return sorted(levels, key=_start)
    plain = {level: re.sub(r"^(stage|grade|nyha|class)|[\s_-]", "", level.lower()) for level in levels}
    for scale in _SCALES:
        if set(plain.values()) <= set(scale) and len(set(plain.values())) == len(levels):
            return sorted(levels, key=lambda level: scale.index(plain[level]))
    return None


def _start(level: str) -> tuple[float, int]:
    found = _INTERVAL.fullmatch(level)
    numbers = [float(group) for group in (found.groups() if found else ()) if group is not None]
    value = numbers[0] if numbers else 0.0
    return (value, -1) if level.startswith(("<", "≤")) else (value, 1 if level.startswith((">", "≥")) else 0)


TRUTH = tuple(
    frozenset(pair)
    for pair in (
        *(("yes", "no"), ("y", "n"), ("true", "false"), ("t", "f"), ("0", "1"), ("positive", "negative")),
        *(("present", "absent"), ("ja", "nein"), ("oui", "non"), ("pos", "neg"), ("0.0", "1.0"), ("on", "off")),
    )
)
"""Pairs of values that are false and true, in lower case."""
