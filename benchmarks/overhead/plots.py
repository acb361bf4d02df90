"""Three small plots of a run."""

from pathlib import Path

import matplotlib as mpl

from benchmarks.overhead.results import Results
from benchmarks.overhead.systems import OURS

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "overhead"  # the same results give the same file

import matplotlib.pyplot as plt  # noqa: E402 (after the backend is chosen)

_PLOTS = (
    ("requests", (("requests", "per_s", "requests/s"), ("streams", "per_s", "streams/s"))),
    (
        "cpu",
        (("requests", "cpu_us", "CPU us per request"), ("chunks", "cpu_us", "CPU us per chunk")),
    ),
    (
        "latency",
        (("latency", "p50_us", "p50 us, 1 connection"), ("chunks", "gap_p99_us", "gap p99 us")),
    ),
)
_OURS_COLOUR, _OTHERS_COLOUR = "#c2410c", "#94a3b8"


def draw(results: Results, folder: Path) -> list[Path]:
    """Write overhead-*.svg into `folder`; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, panels in _PLOTS:
        figure, axes = plt.subplots(1, len(panels), figsize=(8, 2.4), layout="constrained")
        for axis, (measure, what, title) in zip(axes, panels, strict=True):
            _bars(axis, results, measure, what)
            axis.set_title(title, fontsize=9)
        path = folder / f"overhead-{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        files.append(path)
    return files


def _bars(axis: plt.Axes, results: Results, measure: str, figure: str) -> None:
    """Medians, with the range over the rounds."""
    systems = [name for name in results.versions if results.values(measure, name, figure)]
    medians = [results.median(measure, name, figure) for name in systems]
    spreads = [results.spread(measure, name, figure) for name in systems]
    low = [median - spread[0] for median, spread in zip(medians, spreads, strict=True)]
    high = [spread[1] - median for median, spread in zip(medians, spreads, strict=True)]
    colours = [_OURS_COLOUR if name.startswith(OURS) else _OTHERS_COLOUR for name in systems]
    axis.barh(systems, medians, xerr=(low, high), color=colours, error_kw={"lw": 0.8})
    axis.invert_yaxis()
    axis.tick_params(labelsize=8)
    if medians and max(medians) > 20 * min(medians):
        axis.set_xscale("log")
    axis.spines[["top", "right"]].set_visible(False)
