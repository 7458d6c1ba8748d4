"""The commands of docs/export/hub.md against a server of this machine with the hub's interface.

    python benchmarks/exports/judge_hub.py CHECKPOINT IMAGE

It exports the checkpoint (of nano, whose weights ship with samtune) as ``hub``, and runs ``hf
upload``, ``samtune predict hf:owner/polyps`` and ``hf download``, the released programs, against
the stand-in of the tests. The stand-in takes files whole; the hub itself takes large ones by
another way, which is not tried here. It prints each command's exit code and the calls that it made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from hub_stand_in import hub


def main() -> None:
    """Runs the commands."""
    checkpoint, image = sys.argv[1:]
    programs, samtune = Path(sys.executable).parent, [sys.executable, "-m", "samtune"]
    with hub() as server, TemporaryDirectory() as place:
        folder, found = (str(Path(place, name)) for name in ("polyps", "found"))
        word, allowed = "hf:owner/polyps", "base.download=true"
        commands = [
            [*samtune, "export", checkpoint, "--format", "hub", "--out", folder],
            [str(programs / "hf"), "upload", "owner/polyps", folder],
            [*samtune, "predict", word, image, "--out", found, "--box", "60,50,190,200", allowed],
            [str(programs / "hf"), "download", "owner/polyps", "samtune.safetensors"],
        ]
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(Path(place, "home")),
            "HF_TOKEN": "hf_of_nobody",
        }
        for command in commands:
            before = len(server.seen)
            done = subprocess.run(
                command, check=False, env=environment, capture_output=True, text=True
            )
            what = " ".join(Path(word).name for word in command[:3])
            print(f"{what}: exit code {done.returncode}; {', '.join(server.seen[before:]) or '-'}")
            if done.returncode:
                print(done.stdout, done.stderr)
        files = sorted(server.commits[server.head])
        print(f"in the repository: {', '.join(files)}")


if __name__ == "__main__":
    main()
