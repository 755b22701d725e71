"""Commands of the README, so that a test runs what a person reads."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def commands(section: str, block: int) -> list[str]:
    """The lines of the section's code block with that index, without the remarks behind them."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[block].splitlines()
    return [command for line in lines if (command := re.split(r"\s+# ", line)[0].strip())]
