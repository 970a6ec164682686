"""The errors that a user can meet, each with a hint that says what to do next.

    EdgecError
    +-- InputError          model, target, policy, data or bundle is not usable      exit code 3
    +-- UnsupportedError    the target cannot do it; carries the decisions           exit code 4
    +-- ToolchainError      something is not installed, or is the wrong version      exit code 5
    +-- EmitError           the backend failed, or built something else than planned exit code 6
    +-- GoalMissed          a goal that the user set was not reached                 exit code 7

`InternalError` is not in the tree: it is a defect of edgec itself (exit code 70).
This module also runs on the device: standard library only, Python 3.8.
"""

import copyreg
from typing import Any, Sequence, Tuple


class EdgecError(Exception):
    """A failure that is not edgec's fault. `message` says what, `hint` what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}"

    def __reduce__(self) -> Tuple[Any, ...]:
        # Errors cross from subprocesses; the inherited way would call __init__ without the hint.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InputError(EdgecError):
    """The model, target, policy, data or bundle cannot be used as it is."""

    exit_code = 3


class UnsupportedError(EdgecError):
    """The target cannot run what was asked. `decisions` holds what was decided for each node."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str, decisions: Sequence[Any] = ()) -> None:
        super().__init__(message, hint=hint)
        self.decisions: Tuple[Any, ...] = tuple(decisions)


class ToolchainError(EdgecError):
    """A package, backend or tool is missing or too old."""

    exit_code = 5


class EmitError(EdgecError):
    """The backend did not build what was planned. `log` is the backend's own output."""

    exit_code = 6

    def __init__(self, message: str, *, hint: str, log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log


class GoalMissed(EdgecError):
    """A goal was not reached: `goal` names it, `value` was reached, `limit` was asked."""

    exit_code = 7

    def __init__(self, goal: str, value: float, limit: float, *, hint: str) -> None:
        super().__init__(f"goal {goal}: reached {value:g}, limit {limit:g}", hint=hint)
        self.goal = goal
        self.value = value
        self.limit = limit


class InternalError(Exception):
    """A defect of edgec. The command line turns it into a bug report (exit code 70)."""

    exit_code = 70
