"""`edgec finish`: the runtime's own verb, here or on the devices of a farm."""

from edgec.cli import VERBS
from edgec.cli.device import forward

command = forward("finish", VERBS["finish"], farm=True)
