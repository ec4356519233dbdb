"""What several commands of the command line share: how they are looked up, and options."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from imcat.errors import UsageError

__all__ = ["HELP", "Program", "comma_separated", "options", "single_threaded_libraries"]

Command = TypeVar("Command", bound=Callable[..., Any])

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Program(click.Group):
    """The program; an unknown command is answered with the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names."""
        name = args[0]
        if not name.startswith("-") and name not in self.commands:
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(self.commands)}"
            raise UsageError(f"no command is called {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)


def comma_separated(
    _: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Names with commas between, as the callback of an option."""
    if value is None:
        return None
    words = tuple(word.strip() for word in value.split(","))
    if not all(words):
        raise UsageError(f"--{parameter.name} is {value!r}; expected names with commas between")
    return words


def options(*several: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Arguments and options that several commands have."""

    def add(command: Command) -> Command:
        for option in reversed(several):
            command = option(command)
        return command

    return add


def single_threaded_libraries() -> None:
    """Windows of a tile run side by side already; has an effect before numpy is imported only."""
    if "numpy" not in sys.modules:
        from imcat import processes
        from imcat.scale.executor import keep_freed_memory

        processes.single_threaded_libraries()
        keep_freed_memory()
