"""Reads a notebook of the site, a Python file with cells, and runs it in the process that builds.

There is no kernel, which would need ports that other programs may take, and what one notebook has
compiled serves the next.
"""

import base64
import contextlib
import io
import warnings

import jupytext
import matplotlib
import matplotlib.pyplot as plt
from nbformat import NotebookNode
from nbformat.v4 import new_output


def read_and_run(text: str) -> NotebookNode:
    """The notebook with what its cells print and draw. What a cell raises or warns of is raised."""
    matplotlib.use("agg")
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}
    names = {"__name__": "__main__"}
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(codes, start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
            exec(compile(cell.source, f"cell {number}", "exec"), names)
        cell.execution_count = number
        if printed.getvalue():
            cell.outputs.append(new_output("stream", name="stdout", text=printed.getvalue()))
        for figure in plt.get_fignums():
            image = io.BytesIO()
            plt.figure(figure).savefig(image, dpi=144, bbox_inches="tight")
            data = {"image/png": base64.b64encode(image.getvalue()).decode()}
            cell.outputs.append(new_output("display_data", data=data))
        plt.close("all")
    return notebook
