"""Writes the tables of `docs/benchmarks.md` from `docs/attention.json`.

    python -m benchmarks.attention_page

A table is what stands between `<!-- attention.json: summary -->` and
`<!-- end -->`.
"""

import json
import pathlib
import re

from benchmarks import attention_tables as tables

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RECORDS = ROOT / "docs" / "attention.json"
TABLES = {
    "summary": tables.format_summary,
    "forward": lambda records: tables.format_lengths(records, backward=False),
    "backward": lambda records: tables.format_lengths(records, backward=True),
    "auto": tables.format_auto,
}


def with_tables(text, records):
    """The page with the tables of these records.

    Args:
        text: str, the page.
        records: list of dicts, `results` of the benchmark.

    Returns:
        A str.
    """

    def table(match):
        return f"{match[1]}\n\n{TABLES[match[2]](records)}\n\n<!-- end -->"

    return re.sub(
        r"^(<!-- attention\.json: (\w+) -->)$.*?^<!-- end -->$",
        table,
        text,
        flags=re.MULTILINE | re.DOTALL,
    )


def main():
    records = json.loads(RECORDS.read_text(encoding="utf-8"))["results"]
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_tables(text, records), encoding="utf-8")


if __name__ == "__main__":
    main()
