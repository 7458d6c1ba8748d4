"""The verb that says whether this machine and installation can train."""

from __future__ import annotations

import sys

import typer

from samtune.cli.console import Json, answer, speaking

COLUMN = 14
"""Column at which a finding begins, after its state and name."""
MARKS = {"well": "ok", "remark": "--", "fault": "!!"}


def doctor(as_json: Json = False) -> None:
    """Check this machine and installation, also by two steps of training, in about a minute."""
    from samtune.doctor.findings import Finding, findings, with_home_short
    from samtune.doctor.training import train_two_steps
    from samtune.report.setting_words import paragraph

    rows: list[Finding] = []
    with speaking(as_json) as display:
        for finding in map(with_home_short, findings(train_two_steps)):
            rows.append(finding)
            start = f"{MARKS[finding.state]} {finding.name}".ljust(COLUMN)
            words = [finding.text, *([f"-> {finding.remedy}"] if finding.remedy else [])]
            display.say(paragraph(" ".join(words).split(), " " * COLUMN, start))
        faults = [finding.name for finding in rows if finding.state == "fault"]
        display.say(
            f"samtune needs what has failed: {', '.join(faults)}"
            if faults
            else "samtune works here"
        )
    answer({"ok": not faults, "findings": [vars(finding) for finding in rows]}, as_json)
    sys.stdout.flush()
    if faults:
        raise typer.Exit(1)
