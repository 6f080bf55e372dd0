"""Requests that meet are served together, and one that spoils it for others is served alone."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from server.desk import Desk
from server.errors import Unavailable


def test_who_comes_while_others_are_served_is_served_next_together_with_all_who_wait() -> None:
    batches: list[list[int]] = []
    going = threading.Event()

    def serve(numbers: Sequence[int]) -> list[int | None]:
        batches.append(list(numbers))
        assert going.wait(60)
        return [number * 10 if number % 2 else None for number in numbers]

    async def scene() -> list[int | None]:
        desk: Desk[int, int] = Desk("test", serve)
        asked = [asyncio.create_task(desk.bring(number)) for number in range(6)]
        while not batches:
            await asyncio.sleep(0)
        gone = asked.pop(3)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        going.set()
        return list(await asyncio.gather(*asked))

    assert asyncio.run(scene()) == [None, 10, None, None, 50]  # None: to be served alone
    assert sorted(number for batch in batches for number in batch) == [0, 1, 2, 4, 5]
    assert len(batches) == 2


def test_a_failure_is_that_of_the_one_who_was_served_and_sends_several_away_to_be_served_alone() -> None:
    going = threading.Event()

    def serve(numbers: Sequence[int]) -> list[int | None]:
        assert going.wait(60)
        raise Unavailable("store", "away") if 7 in numbers else ValueError(len(numbers))

    async def scene() -> None:
        desk: Desk[int, int] = Desk("test", serve)
        first = asyncio.create_task(desk.bring(1))
        await asyncio.sleep(0)
        others = [asyncio.create_task(desk.bring(number)) for number in (2, 3)]
        await asyncio.sleep(0)
        going.set()
        with pytest.raises(ValueError, match="1"):
            await first
        assert await asyncio.gather(*others) == [None, None]
        with pytest.raises(Unavailable):
            await desk.bring(7)

    asyncio.run(scene())
