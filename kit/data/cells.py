"""Text in CSV files, such that no spreadsheet takes it for a formula."""

import re

# after the apostrophes that mark text; also in full width, and after what a program may trim
FORMULA = re.compile(r"'*([\t\r\n]|[\s\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def harmless(cell):
    """Give a text that begins as a formula with an apostrophe before it; all else as it is.

    Spreadsheets compute what begins with =, +, - or @, also after a tab or the end of a line
    (OWASP, CSV injection). `original` takes the apostrophe away.
    """
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def original(cell: str) -> str:
    """Give the text of which `harmless` made the cell."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
