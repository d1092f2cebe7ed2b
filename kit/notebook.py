"""In a notebook's kernel: whether somebody has it open, and errors of the kit sentence first."""

import os
import sys
from opcode import opmap

HERE = os.path.dirname(__file__) + os.sep  # noqa: PTH120 as in a code's co_filename
REST = "(%tb in a cell of its own shows where in the code.)"


def is_interactive():
    """Tell whether this code runs in a notebook that somebody has open.

    Every request to a Jupyter kernel states whether a question could be asked (`allow_stdin` in
    Jupyter's messaging protocol): JupyterLab says yes; papermill, nbconvert and nbval say no.
    """
    kernel = getattr(_shell(), "kernel", None)
    return kernel is not None and kernel.get_parent("shell")["content"].get("allow_stdin", False)


def install():
    """Show errors that the kit raises by their text, before where they come from; in IPython only.

    In an open notebook `%tb` tells where; in batch the traceback follows, as nobody can ask.
    """
    shell = _shell()
    if shell and not shell.custom_exceptions:
        shell.set_custom_exc((Exception,), _show)


def _shell():
    ipython = sys.modules.get("IPython")  # a notebook's kernel has imported it
    return ipython and ipython.get_ipython()


def _show(shell, kind, error, trace, tb_offset=None):
    if _is_the_kits(trace) and not hasattr(error, "_render_traceback_"):
        lines = [f"{kind.__name__}: {error}", REST]
        if not is_interactive():
            lines[1:] = shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset)
        error._render_traceback_ = lambda: lines  # IPython shows it in place of a traceback
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)
    vars(error).pop("_render_traceback_", None)  # for %tb


def _is_the_kits(trace):
    """Tell whether a `raise` in the kit is the origin, and not what it called."""
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    raises = code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]
    return raises and code.co_filename.startswith(HERE)
