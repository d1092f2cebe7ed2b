"""report.html: one page on what a run was and measured, then its executed notebooks."""

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path

import bleach
import nbformat
from nbconvert import HTMLExporter

from kit import params
from kit.evaluation.model_card import measured, read
from kit.files import replacing
from kit.runner import notebooks, summary

FIGURES = {  # name: what it shows
    "accuracy": "Top-1 and top-5 accuracy of training and validation, by epoch",
    "loss": "Loss of training and validation, by epoch",
    "confusion": "Confusion matrix: how often each class is taken for each other",
    "one_vs_rest": "ROC and precision-recall curves: the average of the classes, and the worst",
    "mistakes": "The worst mistakes: validation images of which the model is surest and wrong",
    "latency": "Latency of one image in each form of the model",
}
KINDS = {"text/html", "text/markdown", "text/latex", "text/plain"}  # of output that is shown
KINDS |= {"image/png", "image/jpeg", "image/svg+xml"}
HIDDEN = {"parameters", "injected-parameters"}  # cells: the report has the parameters once
TAGS = "br del details div h1 h2 h3 h4 h5 h6 hr p pre span summary table tbody td th thead tr"
ATTRIBUTES = bleach.ALLOWED_ATTRIBUTES | {
    "*": ["class", "id"],
    "th": ["colspan"],
    "td": ["colspan"],
}

# Lab's page without the scripts that it loads from elsewhere, and no wider than people read.
TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js %}{% endblock -%}
{%- block html_head_js_mathjax %}{% endblock -%}
{%- block html_head_js_mermaidjs %}{% endblock -%}
{%- block html_head_css %}<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"><style>
body { max-width: 60em; margin: auto; padding: 0 1em; }
img { max-width: 100%; }
figure { display: inline-block; width: 48%; margin: 0.5%; vertical-align: top; }
figcaption, summary { color: #555; font: small sans-serif; }
nav > ul { columns: 3; }
nav > ul > li { break-inside: avoid; }
.jp-RenderedHTMLCommon table { margin-left: 0; }
.jp-RenderedHTMLCommon tr > :is(th, td) { text-align: left !important; }
main [data-mime-type="application/vnd.jupyter.stderr"] { background: none; }
</style>{% endblock -%}
{%- block body_header %}<body class="jp-Notebook" data-jp-theme-light="true"><main>
<div class="jp-RenderedHTMLCommon">{{ nb.metadata.front }}</div>{% endblock -%}
{%- block input %}<details{{ " open" if cell.metadata.failed }}><summary>code</summary>
{{ super() }}</details>{% endblock -%}
{%- block data_png %}<img alt="{{ cell.metadata.alt | escape_html }}"
src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}">{% endblock -%}
"""


def write_report(run_dir: Path) -> None:
    """Write run_dir/report.html, which needs no other file; what the run lacks is left out."""
    whole = nbformat.v4.new_notebook(metadata={"language_info": {"name": "ipython"}})
    contents = []
    for path in sorted((run_dir / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        started = notebook.metadata.papermill.start_time[:16].replace("T", " ")
        when = f'---\n\n<a id="{path.stem}"></a>`{path.name}`, executed {started} UTC'
        headings = _marked(notebook, path.stem)
        whole.cells += [nbformat.v4.new_markdown_cell(when), *map(_shown, _visible(notebook))]
        contents.append(_link(path.stem, notebooks.title(path)) + _list(headings))
    for number, cell in enumerate(whole.cells):
        cell["id"] = f"cell-{number}"  # two notebooks may use the same
    whole.metadata["front"] = "\n".join(_front(run_dir, contents))
    exporter = HTMLExporter(
        raw_template=TEMPLATE,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        sanitize_html=True,
    )
    exporter.register_filter("clean_html", sanitised)
    text, _ = exporter.from_notebook_node(whole, {"metadata": {"name": run_dir.name}})
    with replacing(run_dir / "report.html") as path:
        path.write_text(text, encoding="utf-8")


def sanitised(text) -> str:
    """Give HTML without what a browser could run, whatever names of classes and files are in it.

    nbconvert calls it on what has become HTML: a name may be harmless until Markdown is rendered.
    """
    return bleach.clean(str(text), {*bleach.ALLOWED_TAGS, *TAGS.split()}, ATTRIBUTES)


def _front(run_dir: Path, contents: list[str]) -> Iterator[str]:
    """Give the first page in HTML: what the run was, what it measured, figures, contents."""
    yield f"<h1>Run <code>{html.escape(run_dir.name)}</code></h1><table>"
    for row in (*summary.described(run_dir), *summary.measured(run_dir)):
        name, text = map(html.escape, row)
        yield f"<tr><th>{name}</th><td>{' '.join(text.split())}</td></tr>"
    yield "</table>"
    current = _current_figures(run_dir)
    for name, shows in FIGURES.items():
        path = run_dir / "figures" / f"{name}.png"
        if path.exists() and name in current:
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img alt="{shows}" src="data:image/png;base64,{data}">'
            yield f"<figure>{image}<figcaption>{shows}</figcaption></figure>"
    yield f"<h2>Contents</h2><nav>{_list(contents)}</nav>"
    recorded = read(run_dir / "params.json")
    if sources := recorded.get("sources"):
        values = {name: recorded[name] for name in sources}
        table = params.Table(values, sources)._repr_html_()
        yield f"<h2>Parameters</h2><details><summary>all values</summary>{table}</details>"


def _current_figures(run_dir: Path) -> set[str]:
    """Name the figures that are of this model: what is left of an earlier one is not shown."""
    evaluation = measured(run_dir, "evaluation.json")
    drawn = {"latency": measured(run_dir, "latency.json"), "confusion": evaluation}
    drawn |= {"mistakes": evaluation.get("worst_mistakes"), "one_vs_rest": evaluation.get("curves")}
    return {"accuracy", "loss"} | {name for name, found in drawn.items() if found}


def _marked(notebook, stem: str) -> list[str]:
    """Put an anchor into each section's heading; give the links to them."""
    links = []

    def mark(match):
        anchor = f"{stem}-{len(links) + 1}"
        links.append(_link(anchor, match[1]))
        return f'## <a id="{anchor}"></a>{match[1]}'

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            source = re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](#\1)", cell.source)
            cell.source = re.sub(r"^## (.*)", mark, source, flags=re.MULTILINE)
    return links


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{html.escape(anchor)}">{html.escape(text.replace("`", ""))}</a>'


def _list(items: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _visible(notebook) -> Iterator:
    """Give the cells to show; a code cell knows, for its pictures, what the text above it says."""
    text = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = cell.source
        cell.metadata["alt"] = " ".join(re.sub(r"<.*?>|[`*#|]", "", text).split())[:200]
        tags = set(cell.metadata.get("tags", ()))
        if not tags & HIDDEN and "load_notebook(" not in cell.source:
            yield cell


def _shown(cell):
    """Give the cell without TensorFlow's noise; code that failed is to be unfolded."""
    if cell.cell_type == "code":
        for output in cell.outputs:
            if output.output_type == "stream":
                output["text"] = notebooks.CHATTER.sub("", output["text"])
        kept = [output for output in cell.outputs if output.get("text") != ""]
        for output in kept:  # nbconvert would take a script before what stands in for it
            for kind in output.get("data", {}).keys() - KINDS:
                del output["data"][kind]
        cell.outputs = kept
        cell.metadata["failed"] = any(output.output_type == "error" for output in kept)
    return cell
