"""What a run leaves behind: its report, where it ran, what it measured."""

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

from kit import __version__
from kit.files import replacing
from kit.machine import cores

# TensorFlow's first words, which no setting silences: on a CPU they look like errors.
CHATTER = re.compile(
    r"^(WARNING: All log messages before absl|I\d{4} |E\d{4} .*failed call to cuInit).*\n", re.M
)
PACKAGES = ("tensorflow", "keras", "numpy", "papermill", "tensorboard")
DEVICES = """
import json
import tensorflow as tf
details = tf.config.experimental.get_device_details
print(json.dumps([
    f"{device.name.split(':', 1)[1]} {details(device).get('device_name', '')}".strip()
    for device in tf.config.list_physical_devices()
]))
"""

# Lab's page without the scripts that it loads from elsewhere, and no wider than people read.
TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js %}{% endblock -%}
{%- block html_head_js_mathjax %}{% endblock -%}
{%- block html_head_js_mermaidjs %}{% endblock -%}
{%- block html_head_css %}<style>body { max-width: 75em; margin: auto; }</style>{% endblock -%}
"""


def write_report(run_dir: Path) -> None:
    """Write the executed notebooks of the run into one report.html, which needs no other file."""
    import nbformat
    from nbconvert import HTMLExporter

    text = nbformat.v4.new_markdown_cell
    paths = sorted((run_dir / "notebooks").glob("*.ipynb"))
    links = " · ".join(f"[{path.stem}](#{path.stem})" for path in paths)
    report = nbformat.v4.new_notebook(metadata={"language_info": {"name": "ipython"}})
    numbers = "".join(f"\n- {' '.join(line.split())}" for line in measured(run_dir))
    report.cells.append(text(f"# Run `{run_dir.name}`\n\n{links}\n{numbers}"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        started = notebook.metadata.papermill.start_time[:16].replace("T", " ")
        when = f'---\n\n<a id="{path.stem}"></a>`{path.name}`, executed {started} UTC'
        report.cells += [text(when), *notebook.cells]
    for number, cell in enumerate(report.cells):
        cell["id"] = f"cell-{number}"  # two notebooks may use the same
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                output["text"] = CHATTER.sub("", output["text"])
        if "outputs" in cell:
            cell["outputs"] = [out for out in cell["outputs"] if out.get("text") != ""]
    exporter = HTMLExporter(raw_template=TEMPLATE)
    html, _ = exporter.from_notebook_node(report, {"metadata": {"name": run_dir.name}})
    with replacing(run_dir / "report.html") as path:
        path.write_text(html, encoding="utf-8")


def summary(run_dir: Path) -> list[str]:
    """Say where things are, and what was measured."""
    return [
        f"executed notebooks: {run_dir / 'notebooks'}",
        f"report:             {run_dir / 'report.html'}",
        f"figures:            {run_dir / 'figures'}",
        *measured(run_dir),
    ]


def measured(run_dir: Path) -> list[str]:
    """Say what was measured: accuracy and latency only if since the model was trained."""
    lines = []
    if found := _read_newer(run_dir / "evaluation.json", run_dir / "model.json"):
        top1, top5 = found["top1"]["value"], found["top5"]["value"]
        lines.append(
            f"accuracy:           top-1 {top1:.4f}, top-5 {top5:.4f} of {found['images']} images"
        )
    if found := _read_newer(run_dir / "latency.json", run_dir / "model.json"):
        lines.append(f"latency:            {found['total']['p50']:.1f} ms for one image (median)")
    path = run_dir / "throughput.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        rate = found["images_per_second"]["input"]
        lines.append(f"input:              {rate:,.0f} images/s; {found['input_bound']}")
    return lines


def _read_newer(path: Path, model: Path) -> dict | None:
    if not path.exists() or (model.exists() and model.stat().st_mtime > path.stat().st_mtime):
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def environment(root: Path) -> dict:
    """Give what the run runs on: Python, platform, package versions, devices, commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": cores(),
        "devices": _devices(),
        "packages": {"kit": __version__} | {name: _version(name) for name in PACKAGES},
        "git": _commit(root),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu may stand for tensorflow
        return None


def _devices() -> list[str]:
    """Ask TensorFlow in another process, so that this one holds no GPU while notebooks run."""
    asked = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise ImportError(f"TensorFlow does not start ({last}); make setup installs it")
    return json.loads(asked.stdout.splitlines()[-1])


def _commit(root: Path) -> dict | None:
    """Give the git commit and whether files differ from it; None outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("rev-parse", "--show-prefix"):
            return None  # somebody else's repository around this folder
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
