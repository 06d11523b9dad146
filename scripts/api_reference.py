#!/usr/bin/env python3
"""Writes docs/api.md from the comments of include/atelier/atelier.h.

    python3 scripts/api_reference.py            writes the page
    python3 scripts/api_reference.py --check    fails where the page is not what the header says

Reads the header as clang-format lays it out: a declaration's comment is the /// lines above it or
the ///< at its end. Needs only the standard library.
"""

import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEADER, PAGE = ROOT / "include/atelier/atelier.h", ROOT / "docs/api.md"

OPENING = re.compile(r"^(class|struct|enum class) (?:ATELIER_API )?(\w+)")


class Entry:
    """A declaration with its comment, and what is declared within it."""

    def __init__(self, comment, code):
        self.comment, self.code, self.members = comment, code, []


def without_api(code):
    return code.replace("ATELIER_API ", "")


def joined(lines):
    """A declaration on several lines, on one."""
    return without_api(" ".join(line.strip() for line in lines))


def parse(lines):
    """(the header's own comment, entries)."""
    about, entries, stack, comment, declaration, hidden = [], [], [], [], [], False
    body = False
    for line in lines:
        text = line.strip()
        if body:
            body = text != "}"
            continue
        place = stack[-1].members if stack else entries
        if text.startswith("///<") or text.startswith("///"):
            comment.append(text[3:].removeprefix(" "))
        elif text.startswith("#") or not text:
            comment = [] if not declaration else comment
        elif text.startswith("namespace"):
            about, comment = comment, []
        elif text.startswith("//"):
            continue
        elif text in ("public:", "private:"):
            hidden = text == "private:"
        elif text == "};":
            stack.pop()
            hidden, comment = False, []
        elif text.startswith("}"):
            break
        elif hidden:
            comment = []
        elif (opening := OPENING.match(text)) and text.endswith("{"):
            entry = Entry(comment, f"{opening[1]} {opening[2]}")
            place.append(entry)
            stack.append(entry)
            comment = []
        elif OPENING.match(text) and text.endswith("};"):  # an enumeration on one line
            place.append(Entry(comment, without_api(text)))
            comment = []
        else:
            code, _, trailing = text.partition("///<")
            declaration.append(code)
            if trailing:
                comment.append(trailing.strip())
            enumerator = stack and stack[-1].code.startswith("enum") and code.rstrip().endswith(",")
            if enumerator or code.rstrip().endswith((";", "{", "}")):
                place.append(Entry(comment, joined(declaration)))
                comment, declaration = [], []
                body = code.rstrip().endswith("{")
    return about, entries


def prose(comment):
    """A comment as Markdown: indented lines stay code, others are wrapped."""
    out, paragraph = [], []

    def end():
        if paragraph:
            out.extend(textwrap.wrap(" ".join(paragraph), 100))
            paragraph.clear()

    for line in comment:
        if line.startswith("    ") or not line:
            end()
            out.append(line)
        else:
            paragraph.append(line)
    end()
    return out


def code(text):
    text = re.sub(r"\s*\{(| .*\})$", "", text.strip().rstrip(";,")).removeprefix("inline ")
    lines = [""]
    for part in re.split(r"(?<=, )", text):
        if lines[-1].strip() and len(lines[-1]) + len(part) > 100:
            lines.append("    ")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def member(entry):
    words = " ".join(entry.comment)
    first = f"- `{entry.code.rstrip(',;').rstrip(' {')}`" + (f": {words}" if words else "")
    yield from textwrap.wrap(
        first, 100, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )
    for inner in entry.members:
        for line in member(inner):
            yield "  " + line


def section(entry):
    name = re.sub(r"^(class|struct|enum class) ", "", entry.code)
    yield f"## {name}"
    yield ""
    yield from prose(entry.comment)
    yield ""
    functions = [one for one in entry.members if "(" in one.code and not one.members]
    values = [one for one in entry.members if one not in functions]
    # Destruction and moving need no words.
    functions = [one for one in functions if not re.search(r"~|&&", one.code)]
    for one in values:
        yield from member(one)
    if values:
        yield ""
    for one in functions:
        yield from function(one)


def function(entry):
    yield "```cpp"
    yield from code(entry.code)
    yield "```"
    yield ""
    if entry.comment:
        yield from prose(entry.comment)
        yield ""


def page():
    about, entries = parse(HEADER.read_text().splitlines())
    out = [
        "# The C++ API",
        "",
        "<!-- Written by scripts/api_reference.py from include/atelier/atelier.h; edit that. -->",
        "",
        *prose(about),
        "",
        "`#include <atelier/atelier.h>`, namespace `atelier`.",
        "How to build against it: [library.md](library.md).",
        "",
    ]
    free = []
    for entry in entries:
        if OPENING.match(entry.code) and entry.members:
            out.extend(section(entry))
        elif entry.code.startswith("using "):
            name = entry.code.split()[1]
            out.extend([f"## {name}", "", *function(entry)])
        else:
            free.append(entry)
    out.extend(["## Functions", ""])
    for entry in free:
        out.extend(function(entry))
    return "\n".join(out).rstrip() + "\n"


def main():
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit("docs/api.md is not what the header says; run: python3 scripts/api_reference.py")


if __name__ == "__main__":
    main()
