"""What the numbers depend on besides the code: without names of hosts, people or folders."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .processes import ROOT

PACKAGES = "jlstm jax jaxlib numpy flax equinox dm-haiku torch".split()
VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def describe() -> dict:
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gb": memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES},
        "commit": commit(),
        "load_before": round(os.getloadavg()[0], 2),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def in_words(machine: dict) -> str:
    versions = [f"{name} {v}" for name, v in machine["versions"].items() if v and name != "jlstm"]
    set_to = [f"{name}={value}" for name, value in machine["environment"].items()]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB",
        f"Python {machine['python']}",
        *versions,
        f"jlstm at {machine['commit']}",
        f"load {machine['load_before']} before",
        *set_to,
    ]
    return "; ".join(parts)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int | None:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that is measured, `+` if files of the package differ from it."""
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        run = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
