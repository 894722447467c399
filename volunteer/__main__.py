"""`python -m volunteer --token T`: share this machine. With `--measure`: say how fast it would be.

Exit codes: 0 left as it was told to, 1 it could not go on (standard error says why and what to do), 2 wrong
usage.
"""

import os
import signal
import sys

from volunteer.config import parse_config
from volunteer.signals import hold_pauses


def main() -> int:
    # Until `volunteer.service` takes the signals over there is nothing to put away.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    hold_pauses()
    config = parse_config(sys.argv[1:], os.environ)
    try:
        if config.measure:  # either loads torch, which takes seconds
            from volunteer.measure_command import run
        else:
            from volunteer.service import run
    except ModuleNotFoundError as error:
        print(
            f"volunteer: {error.name} is not installed: only the relay is. Install Corolla with its "
            "'volunteer' extra, as the README says under 'Share a machine'.",
            file=sys.stderr,
        )
        return 1
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
