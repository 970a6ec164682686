"""`edgec run`: the runtime's own verb."""

from edgec.cli import VERBS
from edgec.cli.device import forward

command = forward("run", VERBS["run"])
