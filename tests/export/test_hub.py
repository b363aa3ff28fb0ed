"""Pushing: what is sent, to whom, and what happens when the hub does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError

from lightning_prune.export import hub
from lightning_prune.export.hub import push


class Hub:
    """Stands in for the API, and keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, repo: str, **said: Any) -> str:
        self.said.append(("create", {"repo": repo, **said}))
        return f"https://hub/{repo}"

    def upload_folder(self, **said: Any) -> None:
        self.said.append(("folder", said))

    def upload_file(self, **said: Any) -> None:
        self.said.append(("file", said))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Hub:
    api = Hub()
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    return api


def test_a_folder_goes_as_a_whole_into_a_private_repository(api: Hub, tmp_path: Path) -> None:
    """Public only if that is said."""
    assert push(tmp_path, "me/model") == "https://hub/me/model"
    assert api.said == [
        ("create", {"repo": "me/model", "private": True, "exist_ok": True}),
        ("folder", {"repo_id": "me/model", "folder_path": tmp_path}),
    ]


def test_a_file_goes_under_its_own_name(api: Hub, tmp_path: Path) -> None:
    """As GGUF files do."""
    (tmp_path / "model.gguf").touch()
    push(tmp_path / "model.gguf", "me/model", private=False)
    assert api.said[0][1]["private"] is False
    assert api.said[1][1]["path_in_repo"] == "model.gguf"


@pytest.mark.parametrize("repo", ["model", "a/b/c", "me/mo del"])
def test_what_cannot_be_a_repository_is_refused_before_anything_is_sent(
    repo: str, api: Hub, tmp_path: Path
) -> None:
    """The name is checked here, not there."""
    with pytest.raises(ValueError, match="user/name|cannot be the name"):
        push(tmp_path, repo)
    assert api.said == []


def test_a_path_that_is_not_there_is_refused(api: Hub, tmp_path: Path) -> None:
    """Before a repository is made."""
    with pytest.raises(ValueError, match="nothing at"):
        push(tmp_path / "no", "me/model")
    assert api.said == []


def test_a_hub_that_refuses_is_told_in_one_line(
    api: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the repository's name."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("401 Unauthorized\nlong story")

    monkeypatch.setattr(api, "upload_folder", refuse)
    with pytest.raises(OSError, match=r"pushing .* to 'me/model' failed: 401 Unauthorized$"):
        push(tmp_path, "me/model")
    assert issubclass(HfHubHTTPError, hub.HTTPError)


def test_a_missing_or_wrong_login_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made, where it is seen that early."""
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(ValueError, match="hf auth login"):
        hub.check_login()
    monkeypatch.setattr(hub, "get_token", lambda: "hf_x")
    hub.check_login()
