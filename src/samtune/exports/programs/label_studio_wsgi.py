"""Starts the backend: ``python _wsgi.py``, or a WSGI server that takes ``_wsgi:app``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def application() -> Any:
    """The server, with its model loaded."""
    sys.path.insert(0, str(HERE))
    # label-studio-ml keeps there what the projects told it
    os.environ.setdefault("MODEL_DIR", str(HERE))
    from label_studio_ml.api import init_app
    from model import TunedSam, model

    from samtune.errors import InputError

    try:
        model()
    except InputError as error:
        sys.exit(str(error))
    return init_app(TunedSam)


app = application()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 to be reached from outside")
    parser.add_argument("-p", "--port", type=int, default=9090)
    words = parser.parse_args()
    app.run(host=words.host, port=words.port)
