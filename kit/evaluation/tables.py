"""Numbers of an evaluation as tables and lines of Markdown."""

import re

import numpy as np

SHOWN = 10  # classes at either end, where there are many


def markdown(head, rows):
    """Lay out rows of cells under a head."""
    cells = [
        [str(value).replace("|", "\\|").replace("\n", " ") for value in line]
        for line in (head, ["---"] * len(head), *rows)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def escape(name):
    """Give a name as Markdown, in one line, that shows it as it is."""
    line = " ".join(str(name).split())
    return re.sub(r"[\\`*<>&#~$]|\b_|_\b|\](?=[(\[:])", r"\\\g<0>", line)


def code(text):
    """Give a text as Markdown's code in one line, whatever backticks it holds."""
    line = " ".join(str(text).split())  # an empty line would end the code
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def classes(per_class, confusion):
    """Give a table of the classes, worst first: their scores, and what they are mistaken for.

    Both as `scores.evaluate` gives them. Of many classes, SHOWN of the worst and of the best.
    """
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    rows = []
    for row, mistakes in zip(per_class, wrong, strict=True):
        taken = f"{escape(per_class[mistakes.argmax()]['name'])} ({mistakes.max()})"
        score = share(row, "top1") if row["images"] else ["", ""]
        score += [f"{row[key]:.1%}" if row["images"] else "" for key in ("precision", "f1")]
        rows.append([escape(row["name"]), row["images"], *score, taken if mistakes.max() else ""])
    known = [row["top1"] if row["images"] else 2.0 for row in per_class]
    order = np.argsort(known, kind="stable")
    if len(order) > 3 * SHOWN:
        order = [*order[:SHOWN], *order[-SHOWN:]]
    head = ["class", "images", "top-1, recall", "95 % interval", "precision", "F1"]
    head.append("most often mistaken for")
    return markdown(head, [rows[label] for label in order])


def splits(counts):
    """Name the splits with their counts: "1,000 training and 200 validation"."""
    named = [f"{count:,} {name.replace('train', 'training')}" for name, count in counts.items()]
    return " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)


def macro(found):
    """Say in a line the averages over the classes, `macro` of `scores.evaluate`."""
    area, precision = (
        "unknown" if found[key] is None else f"{found[key]:.3f}"
        for key in ("roc_auc", "average_precision")
    )
    return (
        f"balanced accuracy {found['balanced_accuracy']:.1%}, precision {found['precision']:.1%}, "
        f"F1 {found['f1']:.1%}, ROC area {area}, average precision {precision}"
    )


def share(score, key="value"):
    """Give a share and its interval, as text."""
    return [f"{score[key]:.1%}", f"{score['low']:.1%} to {score['high']:.1%}"]


def compared(found):
    """Say in a line what `comparison.compare` found."""
    return (
        f"{found['difference']:+.2%} of {found['images']:,} images, 95 % interval "
        f"{found['low']:+.2%} to {found['high']:+.2%}; right alone on {found['only_ours']:,}, the "
        f"other on {found['only_theirs']:,}; exact McNemar p = {found['p_value']:.2g}"
    )


def exports(found):
    """List what `export.export_all` gives, a line each, and another for what int8 costs."""
    lines = []
    for row in found:
        size, difference = f"{row['bytes'] / 1e6:.0f} MB", f"{row['max_difference']:.1e}"
        lines.append(f"{row['form']}: {size}, log-probabilities differ by {difference} at most")
        if cost := row.get("cost"):
            lines.append(f"  same answer to {cost['agreement']:.1%} of the validation images;")
            lines.append(f"  top-1 {compared(cost)}")
    return "\n".join(lines)
