"""Models on the Hugging Face hub, and folders as the hub has them.

A repository holds one checkpoint, its header as JSON for readers, and a card. Nothing is fetched
unless the caller says so, and nothing but the checkpoint's safetensors file is ever read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from samtune.errors import InputError
from samtune.files import as_path, write_whole
from samtune.options import speaks_python

if TYPE_CHECKING:
    from samtune.model.finetuned import FineTuned

PREFIX = "hf:"
"""The start of a word that names a repository: ``hf:owner/name``, or ``hf:owner/name@revision``."""
FILE = "samtune.safetensors"
"""The checkpoint in a repository, or in a folder of one."""
ID = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")
REMEDY = "free some space or choose another folder"
EXTRA = "pip install 'samtune[hf]'"


def is_on_hub(word: str | Path) -> bool:
    """Whether a word names a repository of the hub."""
    return str(word).startswith(PREFIX)


def repository_of(word: str | Path) -> tuple[str, str | None]:
    """The id and the revision of a repository.

    Args:
        word: ``hf:owner/name``, or ``hf:owner/name@revision``.

    Raises:
        InputError: Another form.
    """
    match = ID.fullmatch(str(word).removeprefix(PREFIX))
    if match is None:
        raise InputError(
            f"{word}: must be hf:owner/name, or hf:owner/name@revision with a commit, tag or branch"
        )
    return match["id"], match["revision"]


def file_on_hub(word: str | Path, download: bool = False) -> Path:
    """The checkpoint of a repository, in the hub's local cache.

    Args:
        word: See :func:`repository_of`. Without a revision it is the one that was fetched last.
        download: Whether it may be fetched.

    Raises:
        InputError: It is not in the cache and may not be fetched, or cannot be.
    """
    name, revision = repository_of(word)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(f"{word}: needs huggingface-hub; {EXTRA}") from error
    try:
        return Path(hf_hub_download(name, FILE, revision=revision, local_files_only=not download))
    except Exception as error:  # the client raises many types; each means that there is no file
        at = f" --revision {revision}" if revision else ""
        if download:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{word}: {FILE} could not be fetched ({reason}); check the id, the revision and "
                "the network"
            ) from error
        raise InputError(
            f"{word}: is not in the local cache, and nothing is fetched unasked; allow it with "
            f"base.download=true (in Python download=True), or run hf download {name} {FILE}{at}"
        ) from error


class OnHub:
    """The methods by which a model is kept as the hub has it."""

    about: Mapping[str, Any] | None = None
    """Further entries of the checkpoint's header that it was read from, as settings and numbers."""

    @speaks_python()
    def save_pretrained(self, folder: str | Path, **card: Any) -> Path:
        """Writes checkpoint, header and card to a folder, which ``from_pretrained`` reads.

        Args:
            folder: The folder to write to; made if missing.
            card: ``name``, ``licence``, ``data``, ``data_licence``, ``base_model`` and ``picture``
                for the card, see :func:`samtune.model.card.card_of`.

        Raises:
            InputError: A model that no checkpoint can describe, or a place that cannot be written.
        """
        from samtune.model.card import card_of
        from samtune.model.checkpoint import write_checkpoint
        from samtune.model.header import read_header

        place = as_path(folder)
        file = write_checkpoint(_model(self), place / FILE, **(self.about or {}))
        header = read_header(file)
        text = card_of(header, **{"name": place.resolve().name, **card})
        write_whole(place / "config.json", json.dumps(header, indent=1) + "\n", REMEDY)
        write_whole(place / "README.md", text, REMEDY)
        return place

    @classmethod
    @speaks_python()
    def from_pretrained(cls, source: str | Path, base: Any = None, **how: Any) -> Self:
        """The model of a folder of :meth:`save_pretrained`, or of a repository.

        Args:
            source: A folder, ``owner/name`` or ``hf:owner/name@revision``.
            base: The base, as for :func:`samtune.load`.
            how: Further arguments of :func:`samtune.load`, as ``download=True``.

        Raises:
            InputError: See :func:`samtune.load`.
        """
        from samtune.model.checkpoint import load

        named = not is_on_hub(source) and not as_path(source).exists()
        word = f"{PREFIX}{source}" if named else source
        return load(word, base, **how)  # type: ignore[return-value]

    @speaks_python()
    def push_to_hub(
        self,
        repository: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Checkpoint of samtune",
        **card: Any,
    ) -> str:
        """Puts checkpoint, header and card into a repository of the hub, which is made if missing.

        Args:
            repository: ``owner/name``, or ``owner/name@branch``.
            revision: The branch; by default the main one.
            private: Whether a new repository is private.
            token: By default the one that ``hf auth login`` keeps.
            message: The message of the commit.
            card: See :meth:`save_pretrained`.

        Returns:
            The word that loads exactly this: ``hf:owner/name@commit``.

        Raises:
            InputError: Another form of name, no permission, or no connection.
        """
        name, branch = repository_of(repository)
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise InputError(f"{repository}: needs huggingface-hub; {EXTRA}") from error
        api = HfApi(token=token)
        with TemporaryDirectory() as place:
            folder = self.save_pretrained(place, **{"name": name.partition("/")[2], **card})
            try:
                api.create_repo(name, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    revision=revision or branch,
                    commit_message=message,
                )
            except Exception as error:  # the client raises many types
                reason = str(error).strip().partition("\n")[0]
                raise InputError(
                    f"{repository}: could not be written on the hub ({reason}); check the name, "
                    "hf auth login, and the network"
                ) from error
        return f"{PREFIX}{name}@{commit.oid}"


def _model(model: Any) -> FineTuned:
    return model  # type: ignore[no-any-return]  # the class that takes these methods in
