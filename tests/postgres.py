"""A PostgreSQL server of the tests' own, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    beside = shutil.which("initdb")
    return found[-1] if found else Path(beside).resolve().parent if beside else None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Its address, while it runs on a free port of the loopback."""
    home = programs()
    assert home is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The server refuses to be root's.
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if become:
        for path in (folder, *folder.parents):
            if path.owner() == "root" and path != Path("/") and str(path) != "/tmp":
                path.chmod(path.stat().st_mode | 0o055)
        shutil.chown(folder, "postgres")

    def run(program: str, *options: str) -> None:
        done = subprocess.run([*become, str(home / program), *options], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr

    data = folder / "data"
    run("initdb", "-D", str(data), "-U", "antiphon", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    run("pg_ctl", "-D", str(data), "-w", "-o", settings, "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql://antiphon@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
