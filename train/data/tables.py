"""CSV tables of corpora: a header, and rows that are checked one by one."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from train.errors import DataError

T = TypeVar("T")


def read_table(path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], T]) -> list[T]:
    """Read a table in the file's order.

    Args:
        path: A CSV file with a header, UTF-8.
        columns: Those that it must have; it may have others.
        parse: Makes something of a row, or raises ValueError, OverflowError or KeyError.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds a value that cannot be; says which, and the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, restval="")
            missing = [column for column in columns if column not in (table.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the column {', '.join(missing)}; it must have {', '.join(columns)}")
            found = []
            for row in table:
                try:
                    found.append(parse(row))
                except KeyError as error:
                    raise DataError(f"{path}, line {table.line_num}: {error.args[0]!r} is not known") from error
                except (ValueError, OverflowError) as error:
                    raise DataError(f"{path}, line {table.line_num}: {error}") from error
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
