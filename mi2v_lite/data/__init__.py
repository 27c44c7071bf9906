"""Clips to train on and to measure with: a world with exact flow, films and videos with tracked flow, their files."""
