"""``train.feature_cache``: how much of the encoder's results is cached, and where."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune.distributed import place
from samtune.errors import InputError
from samtune.files import check_room
from samtune.model.feature_cache import FeatureCache
from samtune.model.feature_store import FeatureStore, digest_of_base
from samtune.options import as_yaml
from samtune.options.sizes import bytes_in
from samtune.training.memory import free_memory_of_machine

if TYPE_CHECKING:
    from samtune.model.finetuned import FineTuned

FOLDER = "features"
"""The folder of cached results within a run's or a comparison's."""
KEY = "train.feature_cache"
AUTO, OFF, HALF, RAM, DISK = "auto", "off", "half", "ram", "disk"
OF_FREE = 4
"""``auto`` takes one part in this many of what is free."""
RULE = (
    "must be off, auto, a size of memory as 8GB, ram=SIZE, disk=SIZE, or several of them joined by "
    "commas, also with half, as in ram=4GiB,disk=50GiB,half"
)
CacheSetting = bool | int | float | str | Sequence[str]


@dataclass(frozen=True)
class Caching:
    """The sizes that a setting means."""

    auto: bool = False
    """Whether to cache only if that helps, with sizes of samtune's choice if none is set."""
    ram: int = 0
    """Bytes of memory per process."""
    disk: int = 0
    """Bytes of disk."""
    half: bool = False
    """Whether single precision is stored as half precision."""

    @classmethod
    def read(cls, setting: CacheSetting) -> Caching:
        """The meaning of a setting.

        Raises:
            InputError: It has none.
        """
        if setting is False or setting == OFF:
            return cls()
        if isinstance(setting, bool | float):
            raise InputError(f"{KEY}={as_yaml(setting)}: {RULE}")
        if isinstance(setting, int):
            if setting < 0:
                raise InputError(f"{KEY}={setting}: must be at least 0 bytes")
            return cls(ram=setting)
        whole = as_word(setting)
        values: dict[str, Any] = {}
        for word in (part.strip() for part in whole.split(",")):
            name, _, size = word.rpartition("=") if "=" in word else ("", "", word)
            kind = word if word in (AUTO, HALF) else name.strip() or RAM
            if kind in values or kind not in (AUTO, HALF, RAM, DISK):
                raise InputError(f"{KEY}={whole}: {f'{kind} twice; ' * (kind in values)}{RULE}")
            values[kind] = True if kind in (AUTO, HALF) else _bytes(size.strip(), whole)
        if values.keys() == {HALF}:
            raise InputError(f"{KEY}={whole}: {RULE}")
        return cls(**values)

    def __bool__(self) -> bool:
        return self.auto or self.ram > 0 or self.disk > 0

    @property
    def is_demanded(self) -> bool:
        """Whether a cache that cannot help is refused."""
        return bool(self) and not self.auto

    def with_sizes(self, folder: Path | None) -> Caching:
        """A copy with sizes for ``auto`` if there are none: a quarter of what is free.

        Args:
            folder: The folder of the disk, if the user or a comparison names one.
        """
        if not self.auto or self.ram or self.disk:
            return self
        ram = free_memory_of_machine() // (OF_FREE * place()[1])
        disk = 0 if folder is None else shutil.disk_usage(_existing(folder)).free // OF_FREE
        return replace(self, ram=ram, disk=disk)


def _bytes(text: str, whole: str) -> int:
    size = bytes_in(text)
    if size is None:
        raise InputError(f"{KEY}={whole}: {text!r} is no size such as 4GiB or 500MB; {RULE}")
    return size


def _existing(folder: Path) -> Path:
    return next((each for each in (folder, *folder.parents) if each.is_dir()), Path())


def as_word(setting: CacheSetting) -> str:
    """A setting as it is typed."""
    return str(setting) if isinstance(setting, int | float | str) else ",".join(map(str, setting))


def check_feature_cache(
    setting: CacheSetting, adapter: str, serves: bool, images_vary: bool
) -> None:
    """Refuses ``train.feature_cache`` if the encoder's results change every time.

    Args:
        setting: Its value.
        adapter: The method's name.
        serves: Whether the method leaves the encoder's first block as it is.
        images_vary: Whether training images change from epoch to epoch without end.

    Raises:
        InputError: They change; the message says what to set instead.
    """
    if not Caching.read(setting).is_demanded:
        return
    text = as_word(setting)
    if not serves:
        raise InputError(
            f"{KEY}={text}: {adapter} trains from the encoder's first block on, so its results "
            "change at every step; leave it out, set adapter.name=none, or adapter.blocks to late "
            "ones if the method has that option"
        )
    if images_vary:
        raise InputError(
            f"{KEY}={text}: training images change in every epoch; set data.views=4 for as many "
            "views of each, data.redraw=false for one, or data.augment=none without crops, "
            "rotation and tiles"
        )


def feature_cache(
    model: FineTuned,
    setting: CacheSetting,
    images_vary: bool,
    folder: Path | None,
    for_several: bool,
) -> FeatureCache | None:
    """The cache of a training; ``None`` if there is none.

    Args:
        model: The model.
        setting: A value of ``train.feature_cache``, which :func:`check_feature_cache` may refuse.
        images_vary: Whether training images change from epoch to epoch without end.
        folder: For what lies on disk, if there is one.
        for_several: Whether somebody named that folder, for several trainings.

    Raises:
        InputError: The disk is to be used, and there is no folder, or it cannot be written.
    """
    caching = Caching.read(setting)
    if not caching or images_vary or model.first_block == 0:
        return None
    caching = caching.with_sizes(folder if for_several else None)
    if not caching.disk:
        return FeatureCache(caching.ram, caching.half)
    if folder is None:
        raise InputError(
            f"{KEY}={as_word(setting)}: has no folder; give output=, or train.feature_folder=FOLDER"
        )
    check_room(folder)
    base, read = digest_of_base(model.sam), model.streams_read
    store = FeatureStore(folder, caching.disk, base, read, caching.half)
    return FeatureCache(caching.ram, caching.half, store)


def remove_store(folder: Path) -> None:
    """Removes the results of one training from the disk."""
    with suppress(OSError):
        shutil.rmtree(folder)
