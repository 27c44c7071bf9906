"""What grades the exercises: one module a notebook (`nb00` to `nb06`), each function one exercise.

A check takes the student's function or value, says *what* is wrong (`CheckFailed`) or prints that it passed.
"""
