"""What grades the exercises: one module for each notebook (`nb00` to `nb06`), and in it one function for each exercise.

A check takes the student's function. It raises `CheckFailed`, which says *what* is wrong, or prints that it is right.
"""
