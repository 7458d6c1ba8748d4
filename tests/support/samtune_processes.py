"""The command line with the tiny base known by name, for the processes of ``test_distributed``.

``python samtune_processes.py JSON`` runs a list of command lines, one after the other in the same
processes; the first that fails, or else the last, is what they end with.
"""

import json
import sys
from unittest import mock

import tiny
from accelerate import PartialState

from samtune.cli.main import main
from samtune.sam.spec import SPECS


def run(words: list[str]) -> None:
    """A command that is not the last: its end is not the end of the processes' meeting."""
    with mock.patch.object(PartialState, "destroy_process_group"):
        try:
            main(words)
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    SPECS["tiny"] = tiny.TINY
    *others, last = json.loads(sys.argv[1])
    for line in others:
        run(line)
    main(last)
