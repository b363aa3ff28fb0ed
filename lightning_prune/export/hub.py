"""Sending a folder or a file to the Hugging Face hub; nothing is sent unless this is called."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

__all__ = ["check_login", "check_repo", "push"]

LOGIN = "Log in by `hf auth login`, or set HF_TOKEN, with a token that may write"


def check_repo(repo: str) -> None:
    """Refuse, early, what cannot be the name of a repository.

    Raises:
        ValueError: it is not like "user/name".
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} cannot be the name of a repository: {error}") from error
    if "/" not in repo:
        raise ValueError(f"push to {repo!r}: give user or organisation too, as in 'user/name'")


def check_login() -> None:
    """Refuse, early, to push without a token.

    Raises:
        ValueError: there is none on this machine.
    """
    if get_token() is None:
        raise ValueError(
            f"pushing to the Hugging Face hub needs a token, and none is here. {LOGIN}."
        )


def push(path: str | Path, repo: str, private: bool = True) -> str:
    """Upload a model folder, or a GGUF file, in one commit.

    The token is the one of `hf auth login`, or of HF_TOKEN.

    Args:
        path: a folder, whose files all go, or one file.
        repo: "user/name"; made if it does not exist.
        private: if it is made: for you alone.

    Returns:
        The address of the repository.

    Raises:
        ValueError: no such path, or not the name of a repository.
        OSError: the hub cannot be reached, or refuses.
    """
    path = Path(path)
    check_repo(repo)
    if not path.exists():
        raise ValueError(f"there is nothing at {path} to push")
    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        if path.is_dir():
            api.upload_folder(repo_id=repo, folder_path=path)
        else:
            api.upload_file(repo_id=repo, path_or_fileobj=path, path_in_repo=path.name)
    except (HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        status = getattr(getattr(error, "response", None), "status_code", None)
        what = f" {LOGIN}." if status in (401, 403) else ""
        raise OSError(f"pushing {path} to {repo!r} failed: {reason}{what}") from error
    return str(address)
