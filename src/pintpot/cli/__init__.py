"""The command line. Exit codes: 0 done; 1 an error in a file or run, told in one line; 2 wrong usage;
70 a bug in pintpot; 130 interrupted."""

from __future__ import annotations

import sys

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `pintpot` command."""
    from pintpot.cli.app import app
    from pintpot.errors import PintpotError, UsageError

    try:
        app()
    except UsageError as error:
        _fail(str(error), EXIT_USAGE)
    except PintpotError as error:
        _fail(str(error), EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has gone; a second failure while closing stdout must stay silent too.
        sys.stderr.close()
        sys.exit(EXIT_ERROR)
    except MemoryError:
        _fail("out of memory: choose a smaller context (-c), batch (-b) or model", EXIT_ERROR)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", EXIT_ERROR)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _fail(
            f"internal error: {type(error).__name__}: {error}; a bug in pintpot; please report it "
            f"with what `pintpot --debug {' '.join(sys.argv[1:])}` prints",
            EXIT_BUG,
        )


def _fail(message: str, code: int) -> None:
    print(f"pintpot: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
