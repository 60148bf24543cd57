"""``antiphon`` and ``python -m antiphon``: the command line."""

import sys


def run() -> int:
    """Runs the command of this process; gives its exit code. Ctrl-C while it is still being read ends it quietly."""
    try:
        from antiphon.faces.cli import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
