"""What the processes of ``test_distributed`` run, with the tiny base known by name.

``python samtune_processes.py JSON`` takes ``{"fits": [...], "signals": [...], "lines": [...]}``:
first the trainings of ``fit_processes``, then those of ``signal_processes``, then command lines,
one after the other in the same processes; the first line that fails, or else the last, is what they
end with.
"""

import json
import sys
import warnings
from unittest import mock

import fit_processes
import signal_processes
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
    jobs = json.loads(sys.argv[1])
    with warnings.catch_warnings(action="error"):
        for fit in jobs["fits"]:
            fit_processes.main(*fit)
    SPECS["tiny"] = tiny.TINY
    if jobs["signals"]:
        signal_processes.main(*jobs["signals"])
    *others, last = jobs["lines"]
    for line in others:
        run(line)
    main(last)
