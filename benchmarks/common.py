"""What the benchmarks share: timing of whole processes, peers, data, the printed header, results."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from imcat.registry import weights_folder

RESULTS = Path(__file__).resolve().parent / "results"
IMCAT = (sys.executable, "-m", "imcat")

#: Debian packages of the peers, by the names of their programs.
_PEERS = {
    "source-extractor": ("source-extractor", ("source-extractor", "sex")),
    "swarp": ("swarp", ("SWarp", "swarp")),
}
_PACKAGES = (
    "imcat",
    "numpy",
    "scipy",
    "astropy",
    "numba",
    "sep",
    "photutils",
    "pyarrow",
    "torch",
    "timm",
    "lightgbm",
)


@dataclass(frozen=True)
class Cost:
    """What a job of one or more processes cost.

    Attributes
    ----------
    wall, cpu : float
        Seconds; CPU of the user and the system, children included.
    peak : float
        Largest resident memory of any one process, workers included, MiB.
    """

    wall: float
    cpu: float
    peak: float


Value = TypeVar("Value")  # that JSON holds


def data_dir() -> Path:
    """Folder of the real and independent data (IMCAT_DATA)."""
    named = os.environ.get("IMCAT_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        sys.exit("real data absent: set IMCAT_DATA to the folder that holds them")
    return folder


def peer(name: str) -> str:
    """Path of a peer's program; exits with the name of its Debian package where it is missing."""
    package, programs = _PEERS[name]
    for program in programs:
        found = shutil.which(program)
        if found:
            return found
    sys.exit(f"{name} is missing: install the Debian package {package} (apt-get install {package})")


def peer_version(name: str) -> str:
    """Ask a peer for its version."""
    done = subprocess.run([peer(name), "--version"], capture_output=True, text=True, check=False)
    return " ".join((done.stdout or done.stderr).split())


def hardware() -> dict[str, Any]:
    """Name of the processor, cores that may be used, memory in GiB."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": name, "cores": cores, "memory_gib": round(memory, 1), "system": platform.platform()}


def versions(peers: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python, of the packages that matter, and of the peers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {name: peer_version(name) for name in peers}


def arguments(
    description: str, extra: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Command line of a benchmark: ``--quick`` and what else it takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="once instead of medians, smaller where possible"
    )
    if extra is not None:
        extra(parser)
    return parser.parse_args()


def run_timed(
    commands: Sequence[Sequence[str]], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Cost:
    """Run commands side by side, wait for all, and measure them as whole processes.

    Wall time ends with the last command. CPU time and memory are those of all descendants: workers
    that are children of a fork server, and so outlive the command that asked for them, come back
    to this process and are counted too.

    Raises
    ------
    RuntimeError
        If one fails; its last lines are shown.
    """
    _adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        start = end = time.perf_counter()
        running: dict[int, tuple[subprocess.Popen[bytes], Sequence[str], Path]] = {}
        for number, command in enumerate(commands):
            log = Path(folder) / f"{number}.log"
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    list(command), cwd=cwd, env={**os.environ, **(env or {})}, stdout=stream, stderr=stream
                )
            running[process.pid] = (process, command, log)
        started = dict(running)
        cpu, peaks = 0.0, []
        while True:
            try:
                pid, status, usage = os.wait4(-1, 0)
            except ChildProcessError:  # nobody is left
                break
            cpu += usage.ru_utime + usage.ru_stime
            peaks.append(usage.ru_maxrss / 1024)  # KiB on Linux
            if pid in running:
                running.pop(pid)[0].returncode = os.waitstatus_to_exitcode(status)
                end = time.perf_counter()
        for process, command, log in started.values():
            if process.returncode:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
        return Cost(end - start, cpu, max(peaks))


def _adopt_orphans() -> None:
    """Let processes whose parent ends become children of this one (Linux: prctl(2), PR_SET_CHILD_SUBREAPER)."""
    set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0):
        raise OSError(
            ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed: CPU times would be too small"
        )


def in_turn(
    jobs: Mapping[str, Callable[[], Cost]], repeats: int, *, warm_up: bool = True
) -> dict[str, list[Cost]]:
    """Run jobs in turn (A B A B …), so that a change of the machine's mood hits all alike."""
    if warm_up:
        for job in jobs.values():
            job()
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            costs[name].append(job())
    return costs


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Medians of each number."""
    return Cost(*(float(np.median([getattr(c, key) for c in costs])) for key in ("wall", "cpu", "peak")))


def print_header(title: str, peers: Sequence[str] = ()) -> dict[str, Any]:
    """Print title, hardware and versions; return them for the results."""
    about = {"hardware": hardware(), "versions": versions(peers)}
    machine = about["hardware"]
    print(f"== {title}")
    print(f"   {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}")
    print("   " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    return about


def print_costs(costs: Mapping[str, Sequence[Cost]], base: str) -> dict[str, dict[str, Any]]:
    """Print medians and ratios to one of the jobs; return them for the results."""
    medians = {name: median_cost(list(runs)) for name, runs in costs.items()}
    width = max(len(name) for name in medians)
    head = f"   {'':{width}}  {'wall s':>8} {'ratio':>6} {'CPU s':>8} {'ratio':>6} {'peak MiB':>9}   wall of each run"
    print(head)
    rows = {}
    for name, cost in medians.items():
        wall, cpu = cost.wall / medians[base].wall, cost.cpu / medians[base].cpu
        runs = " ".join(f"{c.wall:.2f}" for c in costs[name])
        print(
            f"   {name:{width}}  {cost.wall:8.2f} {wall:6.2f} {cost.cpu:8.2f} {cpu:6.2f} {cost.peak:9.0f}   {runs}"
        )
        rows[name] = {
            "wall_s": cost.wall, "cpu_s": cost.cpu, "peak_mib": cost.peak,
            "wall_ratio": wall, "cpu_ratio": cpu, "runs": len(costs[name]),
        }  # fmt: skip
    return rows


def verdict(what: str, value: float, target: str, reached: bool) -> dict[str, Any]:
    """Print a number beside its target; return it for the results."""
    print(f"   {what}: {value:.4g} (target {target}) {'reached' if reached else 'NOT REACHED'}")
    return {"what": what, "value": value, "target": target, "reached": bool(reached)}


def newest(name: str, *, quick: bool) -> dict[str, Any]:
    """The newest result of that kind, whose parts stand until they are measured again; empty where there is none."""
    path = RESULTS / f"{name}.json"
    earlier = [r for r in json.loads(path.read_text()) if r["quick"] == quick] if path.is_file() else []
    return {k: v for k, v in earlier[-1].items() if k not in ("time", "quick")} if earlier else {}


def write_aside(path: Path, text: str) -> None:
    """Write a text file whole, or leave the old one."""
    aside = path.with_suffix(path.suffix + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def write_metrics(name: str, values: Mapping[str, float]) -> None:
    """Put numbers into the card of weights that come with imcat, in place of earlier ones."""
    path = weights_folder() / f"{name}.toml"
    head = path.read_text(encoding="utf-8").split("\n[metrics]")[0].rstrip()
    lines = [f"{json.dumps(key)} = {value:.5g}" for key, value in values.items()]
    write_aside(path, "\n".join([head, "", "[metrics]", *lines, ""]))


@dataclass(frozen=True)
class Kept:
    """Results in a file, so that a benchmark that was stopped goes on where it was."""

    path: Path | None

    def get(self, name: str, make: Callable[[], Value]) -> Value:
        """The one of that name, computed where it is not there yet."""
        known = json.loads(self.path.read_text()) if self.path is not None and self.path.exists() else {}
        if name not in known:
            known[name] = make()
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_aside(self.path, json.dumps(known, indent=1))
        value: Value = known[name]
        return value


def save(name: str, result: Mapping[str, Any], *, quick: bool) -> None:
    """Append a result to benchmarks/results/NAME.json, the newest last."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    history = json.loads(path.read_text()) if path.is_file() else []
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    history.append({"time": stamp, "quick": quick, **result})
    write_aside(path, json.dumps(history, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not written to results")


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="imcat-bench-") as folder:
        yield Path(folder)


SEXTRACTOR_COLUMNS = (
    "NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER",
    "FLUXERR_APER", "A_IMAGE", "B_IMAGE", "THETA_IMAGE", "KRON_RADIUS", "FLUX_RADIUS", "FLUX_MAX", "FLAGS",
)  # fmt: skip


def sextractor_command(
    folder: Path,
    image: Path | str,
    *,
    catalogue: str = "out.cat",
    detect_on: Path | str | None = None,
    columns: Sequence[str] = SEXTRACTOR_COLUMNS,
    kernel: str = "default.conv",
    **settings: object,
) -> list[str]:
    """Write SExtractor's parameter file to a folder and return the command that runs it there.

    Everything that is not set is as in the default.sex that comes with the program.
    """
    (folder / "out.param").write_text("\n".join(columns) + "\n")
    options: dict[str, object] = {
        "CATALOG_NAME": catalogue,
        "CATALOG_TYPE": "FITS_1.0",
        "PARAMETERS_NAME": "out.param",
        "FILTER_NAME": str(sextractor_share() / kernel),
        "STARNNW_NAME": str(sextractor_share() / "default.nnw"),
        "VERBOSE_TYPE": "QUIET",
    } | settings
    images = str(image) if detect_on is None else f"{detect_on},{image}"
    flat = [text for key, value in options.items() for text in (f"-{key}", str(value))]
    return [peer("source-extractor"), images, "-c", str(sextractor_share() / "default.sex"), *flat]


def sextractor_share() -> Path:
    """Folder of the filters that come with SExtractor."""
    for folder in (Path("/usr/share/source-extractor"), Path("/usr/share/sextractor")):
        if (folder / "default.conv").is_file():
            return folder
    sys.exit("SExtractor's default.conv is missing: install the Debian package source-extractor")


def sextractor(folder: Path, image: Path | str, **settings: Any) -> NDArray[Any]:
    """Run SExtractor in a folder and read its catalogue; positions there are 1-based."""
    from astropy.io import fits

    command = sextractor_command(folder, image, **settings)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with fits.open(folder / str(settings.get("catalogue", "out.cat"))) as hdus:
        return np.array(hdus[1].data)


def imcat_run(out: Path, inputs: Sequence[Path | str], *options: str) -> list[str]:
    """Command of a run of imcat; an earlier output is removed first."""
    shutil.rmtree(out, ignore_errors=True)
    return [*IMCAT, "run", *map(str, inputs), "-o", str(out), *options]


def imcat_catalogue(folder: Path, inputs: Sequence[Path | str], *options: str) -> Any:
    """Run imcat and read the catalogue of its tile or tiles."""
    from imcat.catalogue import read_run

    out = folder / "imcat"
    run_timed([imcat_run(out, inputs, "--no-report", *options)])
    return read_run(out)


def write_generic_tile(
    folder: Path, name: str, bands: Mapping[str, Mapping[str, object]], reference: str
) -> Path:
    """Write the TOML file of a generic tile."""
    lines = [f'name = "{name}"', f'reference = "{reference}"']
    for band, entries in bands.items():
        lines.append(f"[bands.{band}]")
        for key, value in entries.items():
            lines.append(f'{key} = "{value}"' if isinstance(value, str | Path) else f"{key} = {value}")
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
