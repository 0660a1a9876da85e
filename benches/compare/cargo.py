"""Builds what is measured and what measures."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def build(tidings=None):
    """Gives Tidings' binary, built unless one is given, and the folder of the
    tools."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
    tools = release(HERE / "tools", target / "compare-tools")
    return Path(tidings or release(ROOT, target) / "tidings"), tools


def release(folder, target):
    command = ["cargo", "build", "--release", "--quiet", "--locked"]
    environment = dict(os.environ, CARGO_TARGET_DIR=str(target))
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(f"cannot build {folder}: {' '.join(command)} failed")
    return target / "release"
