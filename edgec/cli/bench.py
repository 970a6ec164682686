"""`edgec bench`: the runtime's own verb."""

from edgec.cli import VERBS
from edgec.cli.device import forward

command = forward("bench", VERBS["bench"])
