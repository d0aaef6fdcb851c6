"""Run the benchmarks that need no peer library and no server, one after the other."""

import subprocess
import sys

RUNS = (
    ["benchmarks.sae_step"],
    [
        "benchmarks.metrics",
        "--images",
        "100",
        "--contenders",
        "ours",
        "clip200",
        "sklearn",
        "steps",
    ],
    ["benchmarks.writing"],
    ["benchmarks.extraction"],
    ["benchmarks.score_profile"],
    ["benchmarks.real_samples"],
    ["benchmarks.promises"],
    ["benchmarks.presets"],
    ["benchmarks.sweep_scores"],
    ["benchmarks.atom_browser"],
)

if __name__ == "__main__":
    for module, *arguments in RUNS:
        print(f"\n## python -m {module} {' '.join(arguments)}\n", flush=True)
        subprocess.run([sys.executable, "-m", module, *arguments], check=False)
