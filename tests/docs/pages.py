"""Checks of the project's pages against the files and the program: links, images, commands, configs
and messages. Needs only the standard library."""

import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess

FENCE = re.compile(r"^\s*```")
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
INLINE_CODE = re.compile(r"`[^`]*`")
PROGRAM = re.compile(r"^(?:[\w./-]*/)?atelier$")
FILE = re.compile(
    r"(?<![\w/.$-])(?:configs|scripts|tests|benchmarks|deploy|docs|src|cmake)/[\w./-]+"
    r"\.(?:toml|py|sh|cpp|h|md|yaml|json|service|svg|png)\b"
)
MESSAGE = re.compile(r"^\*\*`(.+)`\*\*$")
GAP = "…"


def split_code(text):
    """(the page with the lines of code blocks emptied, [(line number, line of a code block)]).

    Blocks are fenced, or indented after an empty line.
    """
    prose, code, fenced, indented, empty = [], [], False, False, True
    for number, line in enumerate(text.split("\n"), 1):
        if FENCE.match(line):
            fenced = not fenced
            prose.append("")
            continue
        indented = not fenced and line.startswith("    ") and (indented or empty)
        empty = not line.strip()
        if fenced or indented:
            code.append((number, line))
            prose.append("")
        else:
            prose.append(line)
    return prose, code


def anchors(text):
    """The names that GitHub gives to a page's headings."""
    names, seen = set(), {}
    for line in split_code(text)[0]:
        if heading := re.match(r"#+\s+(.*)", line):
            words = (
                re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").strip().lower()
            )
            name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            names.add(name if name not in seen else f"{name}-{seen[name]}")
            seen[name] = seen.get(name, 0) + 1
    return names


def broken_links(page, text):
    for number, line in enumerate(split_code(text)[0], 1):
        for target in LINK.findall(INLINE_CODE.sub("", line)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists():
                yield f"{page}:{number}: links to {target}, which does not exist"
            elif anchor and anchor not in anchors(text if file == page else file.read_text()):
                yield f"{page}:{number}: links to {target}; that page has no such heading"


def missing_files(root, page, text):
    for number, line in enumerate(text.split("\n"), 1):
        for name in FILE.findall(line):
            if not (root / name).exists():
                yield f"{page}:{number}: names {name}, which does not exist"


NAME = re.compile(r"`((?:\w+::)+~?\w+)(?:\([^`]*\))?`")
SOURCE = re.compile(r"`([a-z_]+/[\w./*-]*)`")
FOREIGN = {"std", "at", "torch", "c10", "ov", "hn", "boost", "hwy"}
CODE = "src/atelier"


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)


def body_after(text, start):
    """What lies between the brace at or after `start` and its counterpart."""
    begin = text.index("{", start)
    depth = 0
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin + 1 : position]
    return text[begin + 1 :]


class Names:
    """The names of the code: what namespaces hold in headers, and the members of types."""

    TYPE = re.compile(
        r"\b(?:struct|class|enum(?: class)?) (\w+)(?: final)?(?: : ([^;{]*))?\s*\{"
    )
    NAMESPACE = re.compile(r"\bnamespace ([\w:]+) \{")

    def __init__(self, headers, sources=()):
        self.bodies, self.bases = {}, {}  # by the last part of a namespace's or a type's name
        for text in map(without_comments, headers):
            for found in self.NAMESPACE.finditer(text):
                name = found[1].split("::")[-1]
                self.bodies.setdefault(name, []).append(body_after(text, found.start()))
        for text in map(without_comments, [*headers, *sources]):
            for found in self.TYPE.finditer(text):
                self.bodies.setdefault(found[1], []).append(body_after(text, found.end() - 1))
                self.bases.setdefault(found[1], set()).update(re.findall(r"\w+", found[2] or ""))

    def declare(self, inside, name):
        """Whether a namespace or type, or one that it derives from, has a name of its own."""
        own = re.compile(rf"(?<!::)(?<!\.)(?<!->)\b{re.escape(name)}\b")
        if any(own.search(body) for body in self.bodies.get(inside, [])):
            return True
        bases = self.bases.get(inside, set()) - {inside}
        return any(self.declare(base, name) for base in bases)


def unknown_names(page, text, names):
    """Names with `::` in a page that are not in the code."""
    for number, line in enumerate(text.split("\n"), 1):
        for name in NAME.findall(line):
            parts = name.split("::")
            if parts[0] in FOREIGN or parts[0] == parts[-1]:  # atelier::atelier is CMake's
                continue
            if not names.declare(parts[-2], parts[-1]):
                yield f"{page}:{number}: names {name}, which is not in the code"


def names_of(root):
    def texts(ending):
        return [
            path.read_text()
            for folder in (root / CODE, root / "include")
            for path in sorted(folder.rglob(ending))
        ]

    return Names(texts("*.h"), texts("*.cpp"))


def missing_sources(root, page, text):
    """Files that a page names from src/atelier, with or without their ending, but are not there.

    `kernels/*_kernels` needs one that fits.
    """
    code = root / CODE
    modules = {folder.name for folder in code.iterdir() if folder.is_dir()}
    for number, line in enumerate(text.split("\n"), 1):
        for name in SOURCE.findall(line):
            if name.split("/")[0] not in modules:
                continue
            if not any(
                next(folder.glob(name.rstrip("/") + ending), None)
                for folder in (code, root)
                for ending in ("", ".h", ".cpp")
            ):
                yield f"{page}:{number}: names {name}, which is neither in {CODE} nor here"


def repeated_entries(page, text):
    """List entries of a page that are there twice."""
    entries = re.split(r"(?m)^- ", text)[1:]
    for entry in sorted({entry for entry in entries if entries.count(entry) > 1}):
        yield f"{page}: has an entry twice: {entry.splitlines()[0]}"


PAGE = re.compile(r"(?<![\w/.:-])(?:\.\./)*(?:[\w-]+/)*[\w-]+\.md\b")
TEXTS = {
    ".cpp",
    ".h",
    ".py",
    ".pyi",
    ".md",
    ".toml",
    ".sh",
    ".cmake",
    ".txt",
    ".yaml",
    ".html",
    ".js",
    ".css",
    ".cff",
    ".service",
    "",
}


def texts_of(root):
    """The files of the tree that may mention a page."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in {"build", "runs", "demo", "golden", "__pycache__"}
            and not name.startswith(".")
        )
        for name in sorted(names):
            file = pathlib.Path(folder, name)
            if (
                file.suffix in TEXTS
                and file.parent != root / "tests/docs"
                and not file.is_symlink()
                and file.stat().st_size < 1_000_000
            ):
                yield file


def missing_pages(root, file, text):
    """Pages (*.md) that a file mentions but that are neither beside it nor in the root or docs/."""
    for number, line in enumerate(text.split("\n"), 1):
        for name in PAGE.findall(line):
            if not any((folder / name).exists() for folder in (file.parent, root, root / "docs")):
                yield f"{file}:{number}: names {name}, which does not exist"


def words_of(line):
    """The words of a shell line up to a comment; command separators are words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        return list(lexer)
    except ValueError:  # a quote continues on the next line
        return line.split()


def commands(text):
    """(line number, words after "atelier") of every call in the page.

    Calls are those in code blocks, and inline code that begins with "atelier".
    """
    prose, code = split_code(text)
    lines, joined = [], ""
    for number, line in code:
        joined += line.rstrip().removesuffix("\\") + " "
        if not line.rstrip().endswith("\\"):
            lines.append((number, joined))
            joined = ""
    for number, line in enumerate(prose, 1):
        lines += [
            (number, found[1:-1])
            for found in INLINE_CODE.findall(line)
            if found.startswith("`atelier ")
        ]
    for number, line in lines:
        words = words_of(line)
        for i, word in enumerate(words):
            begins = (
                i == 0
                or set(words[i - 1]) <= set("|&;(")
                or "=" in words[i - 1]
                or words[i - 1] in ("do", "then", "time", "$")
            )
            if begins and PROGRAM.match(word):
                end = next(
                    (j for j in range(i + 1, len(words)) if set(words[j]) <= set("|&;<>")),
                    len(words),
                )
                yield number, [w for w in words[i + 1 : end] if w not in ("-q", "--quiet", "...")]


def wrong_command(words, options):
    """What is wrong with a call, or None.

    `options`: those of each subcommand, from its --help; under "" the program's own.
    """
    if not words or words[0] in options[""]:
        return None
    name = words[0]
    if re.fullmatch(r"[A-Z|]+|[a-z]+(\|[a-z]+)+", name):  # a placeholder, or alternatives
        return None
    if name not in options:
        return f"there is no command atelier {name}"
    for word in words[1:]:
        option = word.split("=")[0]
        if (
            option.startswith("-")
            and not re.fullmatch(r"-[\d.]+", option)
            and option not in options[name]
        ):
            return f"atelier {name} has no option {option}"
    return None


def wrong_commands(page, text, options):
    for number, words in commands(text):
        if problem := wrong_command(words, options):
            yield f"{page}:{number}: {problem}"


RUN_COMMANDS = ("run", "teacher", "pairs", "distill", "partition")


def wrong_keys(page, text, keys):
    """Overrides of config keys that do not exist."""
    for number, words in commands(text):
        if words and words[0] in RUN_COMMANDS:
            for word in words[1:]:
                key = word.partition("=")[0]
                if "=" in word and not word.startswith("-") and key not in keys:
                    yield f"{page}:{number}: there is no key {key} in a run's config"


def program_says(program, *arguments):
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout


def options_in(help_text):
    return set(re.findall(r"^\s+(?:-\w,)?(--[\w-]+)", help_text, re.MULTILINE)) | {"-h", "--help"}


def program_help(program):
    """The help text of every subcommand; under "" the program's own."""
    own = program_says(program, "--help")
    names = re.findall(r"^  ([a-z]+) {2,}", own.split("Subcommands:")[1], re.MULTILINE)
    with concurrent.futures.ThreadPoolExecutor(2) as several:
        texts = several.map(lambda name: program_says(program, name, "--help"), names)
    return {"": own, **dict(zip(names, texts))}


def without_examples(helps):
    for name, text in helps.items():
        if not re.search(rf"^  atelier {name}", text, re.MULTILINE):
            yield f"atelier {name} --help: has no example"


def wrong_examples(helps):
    options = {name: options_in(text) for name, text in helps.items()}
    for name, text in helps.items():
        for line in re.findall(r"^  (atelier .*)$", text, re.MULTILINE):
            if problem := wrong_command(words_of(line)[1:], options):
                yield f"atelier {name} --help: {problem}"


def keys_in(explanation):
    """The keys of a config, dotted for tables, as `atelier run CONFIG --explain` prints them."""
    keys, table = set(), ""
    for line in explanation.split("\n"):
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            table = heading[1] + "."
        elif key := re.match(r"([a-z_]\w*) ", line):
            keys.add(table + key[1])
    return keys


def choices_in(explanation):
    """(key, value) of what keys may be set to, from `atelier run CONFIG --explain`: the values of
    choices, and of data.path its forms."""
    table = ""
    for line in explanation.split("\n"):
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            table = heading[1] + "."
        elif key := re.match(r"([a-z_]\w*) ", line):
            name = table + key[1]
            if listed := re.search(r"\(one of (.*)\)$", line):
                yield from ((name, value) for value in re.findall(r'"([^"]*)"', listed[1]))
            if name == "data.path":
                forms = re.findall(r"\.\w+|\bIDX\b|\w+:", line)
                yield from ((name, form) for form in forms)


def all_code(text):
    """What a page has in code blocks and inline code."""
    prose, code = split_code(text)
    inline = re.findall(r"``?([^`]+)``?", "\n".join(prose))
    return "\n".join([line for _, line in code] + inline)


def is_named(word, text):
    before = r"(?<![\w.])" if word[0].isalnum() else r"(?<![\w-])" if word[0] == "-" else ""
    after = r"(?![\w-])" if word[-1].isalnum() else ""
    return re.search(before + re.escape(word) + after, text) is not None


def undocumented(texts, helps, keys, choices):
    """What the program has and no page of `texts` names: commands, options, keys and their values.

    A key counts as named by its last part, in code; one of the fake score's also without "fake_".
    """
    text = "\n".join(texts)
    code = "\n".join(all_code(page) for page in texts)
    for command, help_text in helps.items():
        if command and not is_named(f"atelier {command}", code):
            yield f"docs: no page names the command atelier {command}"
        for option in sorted(options_in(help_text) - {"-h", "--help"}):
            if not is_named(option, code):
                yield f"docs: no page names {option} of atelier {command}".rstrip()
    for key in sorted(keys):
        last = key.split(".")[-1]
        at = r"(?<!\w)" + re.escape(last) + r"(?!\w)"
        if not re.search(at, code) and not is_named(last.removeprefix("fake_"), code):
            yield f"docs: no page names the config key {key}"
    for key, value in choices:
        if not is_named(value, text):
            yield f"docs: no page names {value}, a value of {key}"


def plain_source(text):
    """A source file with adjacent string literals joined and quotes unescaped.

    This way messages are contiguous.
    """
    return re.sub(r'(?<!\\)"\s*\n\s*"', "", text).replace('\\"', '"')


def source_texts(root):
    paths = [root / "Makefile", root / "CMakeLists.txt"]
    for folder, endings in (
        ("src", ("*.cpp", "*.h")),
        ("apps", ("*.cpp",)),
        ("scripts", ("*.sh", "*.py")),
        ("cmake", ("*",)),
    ):
        paths += [path for ending in endings for path in (root / folder).rglob(ending)]
    return [plain_source(path.read_text(errors="replace")) for path in paths if path.is_file()]


def unknown_messages(page, text, sources):
    """Quoted messages of which no source file contains all pieces.

    A message is a line of bold code, with gaps where the program inserts something.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if quoted := MESSAGE.match(line):
            pieces = [piece for piece in quoted[1].split(GAP) if piece.strip()]
            if not any(all(piece in source for piece in pieces) for source in sources):
                yield f'{page}:{number}: no source says "{quoted[1]}"'


def manual_of(root):
    """The pages that are for those who use the program."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def pages_of(root):
    root = pathlib.Path(root)
    named = [
        root / "README.md",
        root / "ARCHITECTURE.md",
        root / "CONTRIBUTING.md",
        root / "CHANGELOG.md",
        *sorted((root / "docs").glob("*.md")),
    ]
    return named + [
        path
        for folder in ("models", "deploy", "python", "examples/*")
        for path in sorted(root.glob(f"{folder}/README.md"))
    ]
