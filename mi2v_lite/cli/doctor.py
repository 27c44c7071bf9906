"""`mi2v doctor`: facts for a bug report."""

from __future__ import annotations

import argparse
import json


def add(commands: argparse._SubParsersAction) -> None:
    """Register `doctor`."""
    each = commands.add_parser("doctor", help="facts for a bug report", description="Facts for a bug report.")
    each.set_defaults(run=run)
    each.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> None:
    """`mi2v doctor`: facts for a bug report."""
    from mi2v_lite.doctor import as_text, examine

    findings = examine()
    print(json.dumps(findings, indent=1) if options.json else as_text(findings))
