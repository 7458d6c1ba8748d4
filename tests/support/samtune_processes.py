"""The command line with the tiny base known by name, for the processes of ``test_distributed``."""

import tiny

from samtune.cli.main import main
from samtune.sam.spec import SPECS

if __name__ == "__main__":
    SPECS["tiny"] = tiny.TINY
    main()
