# SPDX-License-Identifier: Apache-2.0
"""The application: how a command ends, whatever it raises.

TTE_DEBUG=1 shows the traceback of an error.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from tte import __version__
from tte.errors import TteError

# The compiler's matrices are small: a thread pool would cost more than it gives. Before numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

INTERRUPTED = 130
ISSUE_HINT = "this is a defect of tte: please report it with the command and TTE_DEBUG=1's output"

app = typer.Typer(
    name="tte",
    help="Compiles a trained model into int8 firmware that keeps training on the microcontroller.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"tte {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


_Function = TypeVar("_Function", bound=Callable[..., None])


def guarded(function: _Function) -> _Function:
    """Ends a command with one message and its exit status, whatever it raises."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except TteError as error:
            fail(f"error: {error.render()}", error.exit_status)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except BrokenPipeError:  # `tte ops | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (typer.Exit, typer.Abort):
            raise
        except MemoryError:
            fail("error: this machine has too little memory for that", 1)
        except Exception as error:
            text = f"internal error: {type(error).__name__}: {error}\n  hint:  {ISSUE_HINT}"
            fail(text, 1)

    return command  # type: ignore[return-value]


def fail(message: str, status: int) -> NoReturn:
    if os.environ.get("TTE_DEBUG") == "1":
        traceback.print_exc()
    print(message, file=sys.stderr)
    raise typer.Exit(status)
