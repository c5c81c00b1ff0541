"""Preconditions (RFC 9110 section 13) and the dates they are made of (section 5.6.7): pure, for `http.files`."""

from __future__ import annotations

import re
from calendar import timegm
from datetime import UTC, date, datetime
from email.utils import formatdate
from functools import lru_cache

from asyncnet.http.messages import Headers


def failed_precondition(request: Headers, etag: str, modified: int, now: float) -> int | None:
    """412 or 304 if a precondition of a GET or HEAD says so, in the order of section 13.2.2; None to go on.

    `etag` is the representation's strong tag, `modified` the time that its Last-Modified names, `now` is now,
    in seconds since 1970.
    """
    if_match = request.get("if-match")
    if if_match is not None:
        if not _matches(if_match, etag, weakly=False):
            return 412
    else:
        unmodified_since = parse_date(request.get("if-unmodified-since"), now)
        if unmodified_since is not None and modified > unmodified_since:
            return 412
    if_none_match = request.get("if-none-match")
    if if_none_match is not None:
        return 304 if _matches(if_none_match, etag, weakly=True) else None
    modified_since = parse_date(request.get("if-modified-since"), now)
    if modified_since is not None and modified <= modified_since:
        return 304
    return None


def range_applies(request: Headers, etag: str, modified: int, now: float) -> bool:
    """Whether If-Range lets the range through (section 13.1.5): a strong tag or a strong date, exactly ours."""
    if_range = request.get("if-range")
    if if_range is None:
        return True
    if if_range.endswith('"'):
        return if_range == etag
    # A file could have changed again within the second that its date names.
    return if_range == format_date(modified).decode("ascii") and modified < now - 1


_find_tags = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")').findall


def _matches(field: str, etag: str, *, weakly: bool) -> bool:
    """Whether the list of entity tags has ours, which is strong (section 8.8.3.2)."""
    if field.strip() == "*":
        return True
    return any(tag == etag and (weakly or not weak) for weak, tag in _find_tags(field))


@lru_cache(maxsize=4096)
def format_date(second: int) -> bytes:
    """The moment, in seconds since 1970, as an HTTP date."""
    return formatdate(second, usegmt=True).encode("ascii")


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# IMF-fixdate, the RFC 850 form and asctime's, which recipients have to take.
_parse_forms = re.compile(
    r"""
      (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),[ ](?P<day>\d\d)[ ](?P<month>[A-Z][a-z]{2})[ ](?P<year>\d{4})
          [ ](?P<time>\d\d:\d\d:\d\d)[ ]GMT
    | (?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day,[ ](?P<day2>\d\d)-(?P<month2>[A-Z][a-z]{2})-(?P<year2>\d\d)
          [ ](?P<time2>\d\d:\d\d:\d\d)[ ]GMT
    | (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[ ](?P<month3>[A-Z][a-z]{2})[ ](?P<day3>[ \d]\d)[ ](?P<time3>\d\d:\d\d:\d\d)
          [ ](?P<year3>\d{4})
    """,
    re.ASCII | re.VERBOSE,
).fullmatch


def parse_date(text: str | None, now: float) -> int | None:
    """An HTTP date in seconds since 1970; None for none and for what is no date, which counts as not sent.

    A year of two digits that seems to be more than 50 years after `now` is the one a century before.
    """
    match = None if text is None else _parse_forms(text.strip(" \t"))
    if match is None:
        return None
    form = match.groupdict()
    suffix = next(end for end in ("", "2", "3") if form["time" + end] is not None)
    hour, minute, second = map(int, form["time" + suffix].split(":"))
    year = int(form["year" + suffix])
    if suffix == "2":
        current = datetime.fromtimestamp(now, UTC).year
        year += current - current % 100
        if year > current + 50:
            year -= 100
    try:
        month = _MONTHS.index(form["month" + suffix]) + 1
        day = date(year, month, int(form["day" + suffix]))
    except ValueError:
        return None
    if hour > 23 or minute > 59 or second > 60:  # 60: a leap second
        return None
    return timegm((*day.timetuple()[:3], hour, minute, second))
