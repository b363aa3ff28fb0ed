"""Sharing windows among processes, and continuing in the middle of an epoch."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lightning_prune.data import TextData
from lightning_prune.data.loaders import ResumableLoader, ShardSampler
from lightning_prune.data.windows import Windows, collate


def windows(count: int) -> Windows:
    """Windows that are told apart by their number."""
    return Windows(torch.arange(count).repeat_interleave(3).view(count, 3))


def loader(count: int = 10, batch_size: int = 2, workers: int = 0) -> ResumableLoader:
    data = windows(count)
    return ResumableLoader(
        data,
        batch_size=batch_size,
        sampler=ShardSampler(data, rank=0, world=1, shuffle=True, seed=0),
        collate_fn=partial(collate, pad=0),
        num_workers=workers,
    )


def epoch_of(loader: ResumableLoader, epoch: int) -> list[list[int]]:
    """What an epoch hands out; the epoch is set after iter(), as Lightning may do."""
    iterator = iter(loader)
    loader.sampler.set_epoch(epoch)
    return [batch["input_ids"][:, 0].tolist() for batch in iterator]


@pytest.mark.parametrize(("count", "world"), [(10, 2), (11, 2), (11, 4), (2, 4)])
def test_evaluation_shards_hold_every_window_once(count: int, world: int) -> None:
    """All are of one length; what fills them up is marked and counts for nothing."""
    shards = [list(ShardSampler(windows(count), r, world, False, 0)) for r in range(world)]
    drawn = [index for shard in shards for index in shard]
    assert sorted(index for index in drawn if index is not None) == list(range(count))
    assert {len(shard) for shard in shards} == {-(-count // world)}
    assert drawn.count(None) < world


@pytest.mark.parametrize(("count", "world"), [(10, 2), (11, 4)])
def test_training_shards_share_no_window(count: int, world: int) -> None:
    """The remainder is left out, another one every epoch."""
    left_out = []
    for epoch in range(5):
        samplers = [ShardSampler(windows(count), r, world, True, 0) for r in range(world)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shards = [list(sampler) for sampler in samplers]
        drawn = {index for shard in shards for index in shard}
        assert {len(shard) for shard in shards} == {count // world}
        assert len(drawn) == count // world * world
        left_out.append(frozenset(range(count)) - drawn)
    assert count % world == 0 or len(set(left_out)) > 1


def test_order_depends_on_seed_and_epoch_only() -> None:
    """Not on the global random state, which stays as it was."""
    torch.manual_seed(1)
    first = epoch_of(loader(), 0)
    torch.manual_seed(2)
    assert epoch_of(loader(), 0) == first
    assert epoch_of(loader(), 1) != first
    assert sorted(sum(first, [])) == list(range(10))


def by_length(epoch: int, world: int, size: int) -> list[list[int]]:
    """The windows of every step of all processes; window i has 1 + i % 40 tokens."""
    data = Windows([torch.zeros(1 + i % 40) for i in range(403)])
    shards = []
    for rank in range(world):
        sampler = ShardSampler(data, rank, world, True, 0, alike=world * size)
        sampler.set_epoch(epoch)
        shards.append(list(sampler))
    steps = range(0, len(shards[0]), size)
    return [sorted(i for shard in shards for i in shard[at : at + size]) for at in steps]


def test_batches_of_like_lengths_are_the_same_on_any_number_of_processes() -> None:
    """With as many windows in a step: only the remainder may differ."""
    alone, together = by_length(1, 1, 8), by_length(1, 2, 4)
    assert alone[:50] == together[:50]
    assert sorted(sum(alone, [])) == list(range(403))
    assert by_length(2, 1, 8) != alone


def test_batches_of_like_lengths_hold_little_padding_and_come_in_no_order() -> None:
    """Lengths of 1 to 40; a batch of 8 at random would span some 30 of them."""
    batches = [[1 + i % 40 for i in batch] for batch in by_length(0, 1, 8)]
    spans = [max(batch) - min(batch) for batch in batches[:-1]]
    assert max(spans) <= 2
    longest = [max(batch) for batch in batches]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("seen", [0, 1, 4])
def test_a_loader_continues_where_another_stopped(epoch: int, seen: int) -> None:
    """In the same epoch after the same batch; the epoch after that is whole again."""
    whole = epoch_of(loader(), epoch)
    stopped = loader()
    iterator = iter(stopped)
    stopped.sampler.set_epoch(epoch)
    for _ in range(seen):
        next(iterator)
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    assert len(resumed) == 5
    assert epoch_of(resumed, epoch) == whole[seen:]
    assert epoch_of(resumed, epoch + 1) == epoch_of(loader(), epoch + 1)


@pytest.mark.parametrize("skipped", [0, 1])
def test_after_a_finished_epoch_comes_the_next(skipped: int) -> None:
    """Also where the training loop skips a number, as Lightning does with max_steps."""
    stopped = loader()
    epoch_of(stopped, 0)
    for epoch in (1, 2):
        resumed = loader()
        resumed.load_state_dict(stopped.state_dict())
        assert epoch_of(resumed, epoch * (1 + skipped)) == epoch_of(loader(), epoch)
        stopped = resumed


def test_a_resumed_epoch_of_another_number_can_be_resumed() -> None:
    """The number that was skipped before is remembered."""
    stopped, first, second = loader(), loader(), loader()
    epoch_of(stopped, 0)
    first.load_state_dict(stopped.state_dict())
    iterator = iter(first)
    first.sampler.set_epoch(2)
    next(iterator)
    second.load_state_dict(first.state_dict())
    assert epoch_of(second, 2) == epoch_of(loader(), 1)[1:]


def test_a_loaded_place_is_kept_until_it_is_used() -> None:
    """A checkpoint written before the first batch says the same again."""
    resumed = loader()
    state = resumed.state_dict() | {"epoch": 2, "batches": 3}
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state


def test_other_batches_cannot_continue_an_epoch() -> None:
    """The message says what was and what is; between epochs anything may change."""
    state = loader().state_dict() | {"batches": 2}
    with pytest.raises(ValueError, match="after batch 2.*5 batches of 2.*2 batches of 5 windows"):
        loader(batch_size=5).load_state_dict(state)
    between = loader(batch_size=5)
    between.load_state_dict({**state, "batches": 5})
    assert epoch_of(between, 1) == epoch_of(loader(batch_size=5), 1)


def test_workers_hand_out_the_same_batches() -> None:
    """What workers fetch ahead of the training loop does not count as seen."""
    whole = epoch_of(loader(workers=1), 2)
    assert whole == epoch_of(loader(), 2)
    stopped, resumed = loader(workers=1), loader(workers=1)
    stopped.sampler.set_epoch(2)
    iterator = iter(stopped)
    next(iterator)
    resumed.load_state_dict(stopped.state_dict())
    assert epoch_of(resumed, 2) == whole[1:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nsamples": 0}, "nsamples=0; at least 1"),
        ({"batch_size": 0}, "batch_size=0; at least 1"),
        ({"num_workers": -1}, "num_workers=-1; at least 0"),
    ],
)
def test_amounts_that_load_nothing_are_refused(settings: dict[str, int], message: str) -> None:
    """When the object is made, not when a loader is."""
    with pytest.raises(ValueError, match=message):
        TextData("builtin", **settings)  # type: ignore[arg-type]
