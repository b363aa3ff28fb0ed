"""Finished steps are found again by all that they depend on, and by nothing less."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.checkpoints.journal import Journal

WORK = {"model": "abc", "version": 1}


def test_a_step_is_found_again(tmp_path: Path) -> None:
    """By another journal of the same work, whatever the order of its keys."""
    record = {"perplexity": 3.5, "blocks": [1, 2], "error": None}
    assert Journal(tmp_path / "new", WORK).put({"block": 3, "call": "A()"}, record) == record
    again = Journal(tmp_path / "new", {"version": 1, "model": "abc"})
    assert again.get({"call": "A()", "block": 3}) == record
    assert again.get({"call": "A()", "block": 4}) is None
    assert again.get({"call": "A()"}) is None


def test_a_step_that_is_done_again_replaces_its_record(tmp_path: Path) -> None:
    """There is one file a step, which a person can read."""
    journal = Journal(tmp_path, WORK)
    journal.put({"block": 0}, {"seconds": 1})
    journal.put({"block": 0}, {"seconds": 2})
    assert journal.get({"block": 0}) == {"seconds": 2}
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text("utf-8")) == {
        "work": WORK,
        "step": {"block": 0},
        "record": {"seconds": 2},
    }


def test_what_json_gives_back_is_what_counts(tmp_path: Path) -> None:
    """Tuples are lists; a record is the same whether it was just made or read."""
    journal = Journal(tmp_path, {"sizes": (1, 2)})
    made = journal.put({"lengths": (3, 4)}, {"found": (5, 6)})
    assert made == journal.get({"lengths": [3, 4]}) == {"found": [5, 6]}


def test_other_work_has_other_records(tmp_path: Path) -> None:
    """In the same folder they do not meet."""
    ours, theirs = Journal(tmp_path, WORK), Journal(tmp_path, WORK | {"model": "def"})
    ours.put({"block": 0}, {"of": "abc"})
    assert theirs.get({"block": 0}) is None
    theirs.put({"block": 0}, {"of": "def"})
    assert ours.get({"block": 0}) == {"of": "abc"}


def test_going_on_with_other_work_is_refused_by_what_differs(tmp_path: Path) -> None:
    """Where a caller asks for it; every key that differs is named, and no other."""
    Journal(tmp_path, WORK).check()
    Journal(tmp_path, WORK | {"seed": 0}).put({"block": 0}, {})
    Journal(tmp_path, WORK | {"seed": 0}).check()
    with pytest.raises(ValueError, match="has steps of other work") as refused:
        Journal(tmp_path, {"model": "x" * 200, "version": 1}).check()
    message = str(refused.value)
    assert "model (there 'abc', here 'xxx" in message
    assert "seed (there 0, here none)" in message
    assert "version" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"work": {}}', '{"work": 1, "step": 1, "record": 1}', "\x00"]
)
def test_a_half_written_record_is_none(content: str, tmp_path: Path) -> None:
    """It is ignored, and the step is done again."""
    journal = Journal(tmp_path, WORK)
    journal.put({"block": 0}, {"seconds": 1})
    (path,) = tmp_path.iterdir()
    path.write_text(content)
    assert journal.get({"block": 0}) is None
    Journal(tmp_path, {"model": "other"}).check()
    journal.put({"block": 0}, {"seconds": 2})
    assert journal.get({"block": 0}) == {"seconds": 2}


def test_a_record_under_another_s_name_is_not_taken_for_it(tmp_path: Path) -> None:
    """What a file is called does not count, but what it says."""
    journal = Journal(tmp_path, WORK)
    journal.put({"block": 0}, {"seconds": 1})
    (path,) = tmp_path.iterdir()
    entry = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(entry | {"step": {"block": 1}}))
    assert journal.get({"block": 0}) is None


def test_a_crash_while_a_record_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else that would be read."""
    journal = Journal(tmp_path, WORK)
    journal.put({"block": 0}, {"seconds": 1})

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, crash)
            with pytest.raises(KeyboardInterrupt):
                journal.put({"block": 0}, {"seconds": 2})
            with pytest.raises(KeyboardInterrupt):
                journal.put({"block": 1}, {"seconds": 2})
    assert journal.get({"block": 0}) == {"seconds": 1}
    assert journal.get({"block": 1}) is None
    assert len(list(tmp_path.iterdir())) == 1


def test_what_json_cannot_say_is_refused(tmp_path: Path) -> None:
    """And leaves nothing behind."""
    journal = Journal(tmp_path, WORK)
    with pytest.raises(TypeError, match="not JSON serializable"):
        journal.put({"block": 0}, {"set": {1}})
    with pytest.raises(TypeError, match="not JSON serializable"):
        journal.get({"block": {1}})
    assert list(tmp_path.iterdir()) == []
