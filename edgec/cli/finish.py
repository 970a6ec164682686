"""`edgec finish`: the runtime's own verb."""

from edgec.cli import VERBS
from edgec.cli.device import forward

command = forward("finish", VERBS["finish"])
