"""Every code cell of the quick-start notebook runs."""

import json

from support.paths import ROOT


def test_the_notebook_runs():
    notebook = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert len(names["people"]) == 1
    assert {"page.html", "person.glb"} <= {file.name for file in names["folder"].iterdir()}
