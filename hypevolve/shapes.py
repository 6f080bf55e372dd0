"""What all messages share: requests refuse unknown keys, answers ignore them, numbers are finite, names are plain."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Value = float | bool | str  # of a gene: a number, or one of its choices
HypSet = dict[str, Value]
Metrics = Annotated[dict[str, float], Field(max_length=64)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


def _without_nul(value: Any) -> Any:
    """``value`` with the one character replaced that PostgreSQL cannot hold; a trainer's last words may contain it."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value


class Request(BaseModel):
    """A body sent to the coordinator."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        return _without_nul(data)


class Answer(BaseModel):
    """A body sent by the coordinator."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)
