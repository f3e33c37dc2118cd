"""The state of the git checkout that the code of a sweep comes from."""

from __future__ import annotations

from pathlib import Path

from runner.machine.execute import run_short


def git_state(folder: Path) -> tuple[str | None, str]:
    """The commit of the checkout around ``folder``, and the diff against it with a line per untracked file.

    Outside a checkout it is (None, "").
    """
    head = run_short(["git", "rev-parse", "HEAD"], folder)
    if head.status:
        return None, ""
    changed = run_short(["git", "diff", "HEAD"], folder)
    diff = "git diff HEAD failed: the difference from the commit is not known\n" if changed.status else changed.out
    untracked = run_short(["git", "ls-files", "--others", "--exclude-standard"], folder)
    return head.out.strip(), diff + "".join(f"untracked: {name}\n" for name in untracked.out.splitlines())
