#!/usr/bin/env python3
"""Checks the project's pages: links, images, files, commands, options, config keys, names of the
code, quoted messages and the examples in --help; and that the pages name every command, option,
config key and value of a choice (losses, networks, partition methods, data formats).

    python3 tests/docs/check.py build/release/atelier
"""

import pathlib
import sys

import pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELATIVE_TO_CODE = {"ARCHITECTURE.md", "CONTRIBUTING.md", "glossary.md"}


def problems(program):
    helps = pages.program_help(program)
    options = {name: pages.options_in(text) for name, text in helps.items()}
    explanation = pages.program_says(program, "run", str(ROOT / "configs/toy2d.toml"), "--explain")
    keys = pages.keys_in(explanation)
    sources = pages.source_texts(ROOT)
    names = pages.names_of(ROOT)
    for page in pages.pages_of(ROOT):
        text = page.read_text()
        yield from pages.broken_links(page, text)
        yield from pages.missing_files(ROOT, page, text)
        yield from pages.wrong_commands(page, text, options)
        yield from pages.wrong_keys(page, text, keys)
        yield from pages.unknown_messages(page, text, sources)
        yield from pages.unknown_names(page, text, names)
        if page.name in RELATIVE_TO_CODE:
            yield from pages.missing_sources(ROOT, page, text)
    yield from pages.repeated_entries("CHANGELOG.md", (ROOT / "CHANGELOG.md").read_text())
    for file in pages.texts_of(ROOT):
        yield from pages.missing_pages(ROOT, file, file.read_text(errors="replace"))
    manual = [page.read_text() for page in pages.manual_of(ROOT)]
    yield from pages.undocumented(manual, helps, keys, pages.choices_in(explanation))
    yield from pages.without_examples(helps)
    yield from pages.wrong_examples(helps)


if __name__ == "__main__":
    found = list(problems(sys.argv[1]))
    print("\n".join(found) or "all that the pages name is there")
    sys.exit(1 if found else 0)
