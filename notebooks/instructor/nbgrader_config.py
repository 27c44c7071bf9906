"""The settings of a graded course; assignments.py copies them into the course directory."""

import os
import sys

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.converters import Autograde
from nbgrader.preprocessors import ClearHiddenTests, Execute, GetGrades

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "mi2v"
if "autograde" in sys.argv:  # the other commands need no torch
    sys.path.insert(0, os.getcwd())  # the course directory: nbgrader is called there
    from judge import Judge

    # Tests run apart from the answers, in the place of nbgrader's own step.
    steps = Autograde.class_traits()["autograde_preprocessors"].default()
    c.Autograde.autograde_preprocessors = [Judge if step is Execute else step for step in steps]
    c.Judge.seconds = 60  # for one cell or one call of an answer; nbgrader's own limits are 30 and 4 seconds
# Deleted tests come back and count.
c.OverwriteCells.add_missing_cells = True
# Feedback shows what was wrong, and not the hidden tests.
c.GenerateFeedback.preprocessors = [GetGrades, ClearHiddenTests, CSSHTMLHeaderPreprocessor]
# `nbgrader zip_collect` reads what students handed in under the names student_notebook.ipynb.
c.FileNameCollectorPlugin.named_regexp = r".*/(?P<student_id>[^/_]+)_(?P<file_id>[^/]+)\.ipynb"
