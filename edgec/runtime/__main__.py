"""`python3 -m edgec.runtime VERB BUNDLE ...`"""

import sys

from edgec.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
