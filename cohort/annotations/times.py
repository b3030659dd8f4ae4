"""When something was drawn: texts that are a time, in the order of the moments that they name."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(text: str) -> str | None:
    """A date or time of ISO 8601, as it is written; None for any other text, which might name somebody."""
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return text.strip()


def moment(time: str | None) -> datetime:
    """The moment of an ISO 8601 time, to sort by: without a time zone it is UTC, and None is before all others."""
    found = datetime.fromisoformat(time) if time else datetime.min
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def later(*times: str | None) -> str | None:
    """The latest of ISO 8601 times; None without any."""
    return max((time for time in times if time), key=moment, default=None)
