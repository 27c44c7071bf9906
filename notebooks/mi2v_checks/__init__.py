"""What the notebooks share, and what is installed with the package so that students can import it anywhere.

- `nb00` to `nb06` grade the exercises, with one function for each. A check takes the student's function; it raises
  `CheckFailed`, which says *what* is wrong, or prints that the answer is right.
- `results` reads what the experiments of the course found (`make experiments`) and says how certain it is.
- `released` reads what the released code computed, which the notebooks compare with.
- `scenes` draws small scenes whose motion is known by a formula.
- `steering` finds clips in which one thing can be dragged, and measures how well a field or a picture obeys.
"""
