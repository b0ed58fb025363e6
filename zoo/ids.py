"""Ids of the zoo's entries, written as Minari writes those of datasets: ``task/variant-vN``."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAMESPACE = "OffSim"  # of the ids in Gymnasium
PATTERN = re.compile(r"(?P<task>\w[\w-]*)/(?P<variant>\w[\w-]*?)(-v(?P<version>0|[1-9]\d*))?", re.ASCII)


@dataclass(frozen=True, order=True)
class EntryId:
    """Which entry of the zoo is meant; a published one never changes.

    Attributes:
        task: short name of the task.
        variant: how the simulator was learned, such as ``expert``.
        version: counts from 0; ``None`` for the newest.
    """

    task: str
    variant: str
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> EntryId:
        """Read an id.

        Raises:
            ValueError: if it is none.
        """
        found = PATTERN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no id of the zoo: write it as task/variant-vN, such as hopper/expert-v0")
        return cls(found["task"], found["variant"], None if found["version"] is None else int(found["version"]))

    def __str__(self) -> str:
        return f"{self.task}/{self.folder}"

    @property
    def folder(self) -> str:
        """Its folder below the task's."""
        return self.variant if self.version is None else f"{self.variant}-v{self.version}"

    @property
    def environment(self) -> str:
        """Its id in Gymnasium."""
        return f"{NAMESPACE}/{self.task}-{self.folder}"
