"""The vendor's package damoov-admin, unchanged but for the host of its URLs."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path


def redirect(base_url, folder):
    """What is imported from `damoov_admin` from now on calls `base_url`. The package keeps its tokens in
    a database inside of its own folder: it is taken from a copy in `folder`, which processes may share."""
    copy = Path(folder, "damoov_admin")
    if not copy.exists():
        installed = importlib.util.find_spec("damoov_admin").submodule_search_locations[0]
        shutil.copytree(installed, copy)
    sys.path.insert(0, str(folder))

    # The lines that the README tells its readers to add: imports, and the host of every URL.
    readme = Path(__file__).resolve().parents[2].joinpath("README.md").read_text()
    (snippet,) = re.findall(r"```python\n(from urllib.*?)```", readme, re.DOTALL)
    assert "http://127.0.0.1:8080" in snippet, snippet
    exec(snippet.replace("http://127.0.0.1:8080", base_url), {})  # noqa: S102
