"""Types of values on the command line."""

from __future__ import annotations

import click

from zcfuse.options import parse_size


class Size(click.ParamType[int]):
    """A number of bytes, such as 64M."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number of bytes. A text that is not a size is a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
