"""`edgec bench`: the runtime's own verb, here or on the devices of a farm; results can be kept."""

from edgec.cli import VERBS
from edgec.cli.device import forward

command = forward("bench", VERBS["bench"], farm=True, history=True)
