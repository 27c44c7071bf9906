"""How `make lab` sets JupyterLab up: notebook 00 first, the whole repository in reach, and nothing in the way.

The folder is put on JUPYTER_CONFIG_PATH, so your own settings stay where they are and come on top of these.
"""

import os

c = get_config()  # noqa: F821
c.LabApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"  # photos and README lie beside it in the file browser
c.ServerApp.allow_root = hasattr(os, "geteuid") and os.geteuid() == 0  # in a container everyone is root
# nbgrader is for instructors, who use it from the command line (notebooks/instructor/README.md).
c.ServerApp.jpserver_extensions = {
    f"nbgrader.server_extensions.{name}": False
    for name in ("formgrader", "validate_assignment", "assignment_list", "course_list")
}


def leave_out_what_is_of_this_machine(model, **_):
    """Without the version of its Python, a notebook that is only opened and saved stays the same to the byte."""
    if model["type"] == "notebook":
        metadata = model["content"]["metadata"]
        if metadata.get("kernelspec", {}).get("name") == "python3":
            metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
            metadata["language_info"] = {"name": "python"}


c.ContentsManager.pre_save_hook = leave_out_what_is_of_this_machine
