"""Writes the tables of `docs/benchmarks.md` that records in `docs/` hold.

    python -m benchmarks.page

A table is what stands between `<!-- attention.json: summary -->` and
`<!-- end -->`.
"""

import json
import pathlib
import re

from benchmarks import attention_tables, sampling, throughput

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
#: File of records -> table -> function of its results.
TABLES = {
    "attention.json": {
        "summary": attention_tables.format_summary,
        "forward": lambda records: attention_tables.format_lengths(
            records, backward=False
        ),
        "backward": lambda records: attention_tables.format_lengths(
            records, backward=True
        ),
        "auto": attention_tables.format_auto,
    },
    "throughput.json": {
        f"side_{case[0]}": lambda records, case=case: throughput.format_case(
            records, case
        )
        for case in throughput.CASES
    },
    "sampling.json": {
        mode: lambda records, mode=mode: sampling.format_mode(records, mode)
        for mode in sampling.MODES
    },
}


def read_records():
    """The results of each file of `TABLES`, a dict of lists of dicts."""
    return {
        file: json.loads((DOCS / file).read_text(encoding="utf-8"))["results"]
        for file in TABLES
    }


def with_tables(text, records):
    """The page with the tables of these records.

    Args:
        text: str, the page.
        records: dict, as of `read_records`.

    Returns:
        A str.
    """

    def table(match):
        marker, file, name = match.groups()
        return (
            f"{marker}\n\n{TABLES[file][name](records[file])}\n\n<!-- end -->"
        )

    return re.sub(
        r"^(<!-- (\w+\.json): (\w+) -->)$.*?^<!-- end -->$",
        table,
        text,
        flags=re.MULTILINE | re.DOTALL,
    )


def main():
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_tables(text, read_records()), encoding="utf-8")


if __name__ == "__main__":
    main()
