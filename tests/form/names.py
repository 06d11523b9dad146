"""Names of equal spelling in the C++ files of one unity build. Needs only the standard library."""

import re

# Raw strings first, since anything may stand in them.
HIDDEN = re.compile(
    r'R"(\w*)\(.*?\)\1"|/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL,
)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.']*|::|->|\[\[|\]\]|<<|[^\s\w]")
TYPES = {"struct", "class", "union", "enum"}
MACRO = re.compile(r"[A-Z][A-Z0-9_]+$")  # TEST, INSTANTIATE_TEST_SUITE_P
OPENING, CLOSING = "([{", ")]}"


def blanked(text):
    """The text with comments, strings and directives emptied, lines kept."""

    def blank(found):
        lines = "\n" * found[0].count("\n")
        return lines if found[0].startswith("/") else f'""{lines}'

    return DIRECTIVE.sub(
        lambda found: "\n" * found[0].count("\n"), HIDDEN.sub(blank, text)
    )


def tokens_of(text):
    """(token, line number) of each."""
    line, at = 1, 0
    for found in TOKEN.finditer(text):
        line += text.count("\n", at, found.start())
        at = found.start()
        yield found[0], line


def end_of(tokens, start):
    """The index after the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(tokens)):
        token = tokens[i][0]
        depth += (token in OPENING) - (token in CLOSING)
        if token == "[[":
            depth += 2
        elif token == "]]":
            depth -= 2
        if depth <= 0:
            return i + 1
    return len(tokens)


def after_angles(tokens, start):
    """The index after the `>` of the `<` at `start`."""
    depth, i = 0, start
    while i < len(tokens):
        token = tokens[i][0]
        if token in OPENING:
            i = end_of(tokens, i)
            continue
        depth += (token == "<") - (token == ">")
        i += 1
        if depth == 0:
            break
    return i


def without_prefixes(tokens):
    """A declaration without attributes and `template <...>`; nothing for specialisations."""
    i = 0
    while i < len(tokens):
        if tokens[i][0] == "[[":
            i = end_of(tokens, i)
        elif tokens[i][0] == "template":
            if i + 2 < len(tokens) and tokens[i + 1][0] == "<" and tokens[i + 2][0] == ">":
                return []
            i = after_angles(tokens, i + 1) if i + 1 < len(tokens) else i + 1
        elif tokens[i][0] in ("inline", "static", "constexpr", "constinit", "thread_local"):
            i += 1
        else:
            break
    return tokens[i:]


def parameters(words):
    """The types of a function's parameters, without their names, and how many have no default."""
    listed, depth = [[]], 0
    for word in words:
        depth += word in "<([{"
        depth -= word in ">)]}"
        if word == "," and depth == 0:
            listed.append([])
        else:
            listed[-1].append(word)
    listed = [one for one in listed if one and one != ["void"]]
    needed = sum("=" not in one for one in listed)
    types = [one[: one.index("=")] if "=" in one else one for one in listed]
    for one in types:
        named = len(one) > 1 and re.match(r"[a-z_]\w*$", one[-1])
        if named and one[-2] not in ("::", "const", "unsigned", "long"):
            one.pop()
    return tuple(" ".join(one) for one in types), needed


def declared(tokens):
    """(name, line, what) of what a declaration at namespace scope introduces.

    `what` is the text of an alias, what `parameters` says of a function, else None.
    """
    tokens = without_prefixes(tokens)
    words = [token for token, _ in tokens]
    if not words or words[0] in ("static_assert", "friend", "extern", "asm", "namespace"):
        return
    if words[0] == "using":
        if len(words) > 2 and words[2] == "=":
            yield words[1], tokens[1][1], " ".join(words)
        return
    if words[0] in TYPES:
        i = 1
        while i < len(words) and (words[i] in ("class", "struct") or words[i] == "[["):
            i = end_of(tokens, i) if words[i] == "[[" else i + 1
        if i + 1 < len(words) and words[i + 1] in ("{", ":", "final"):
            yield words[i], tokens[i][1], None
            return
        if i + 1 >= len(words):
            return  # only declared
    name, i = None, 0
    while i < len(words):  # identifiers at depth 0; the last before `(`, `=`, `{`, `[`, `,` counts
        word = words[i]
        if word == "operator":
            return
        if word == "<":
            i = after_angles(tokens, i)
        elif word in ("(", "=", "{", "[", ",", ";"):
            if name is None or (word == "(" and MACRO.match(name[0])):
                return
            if "::" in words[max(0, name[2] - 1) : name[2]]:
                return  # a member, defined out of its class
            if word == "(":
                yield name[0], name[1], parameters(words[i + 1 : end_of(tokens, i) - 1])
                return
            yield name[0], name[1], None
            while i < len(words) and words[i] != ",":  # the next of several variables
                i = end_of(tokens, i) if words[i] in OPENING else i + 1
            i, name = i + 1, None
        else:
            if re.match(r"[A-Za-z_]", word):
                name = word, tokens[i][1], i
            i += 1


def is_function(tokens):
    """Whether a declaration up to a brace is that of a function, so that its body follows."""
    tokens, i = without_prefixes(tokens), 0
    while i < len(tokens) and tokens[i][0] not in ("(", "=", "{"):
        i = after_angles(tokens, i) if tokens[i][0] == "<" else i + 1
    return i < len(tokens) and tokens[i][0] == "(" and tokens[0][0] not in TYPES


def names_in(text, everything=False):
    """(namespaces, name, line, what) of all that only this file shall see: what stands in anonymous
    namespaces, and what is static at namespace scope; or of everything at namespace scope."""
    tokens = list(tokens_of(blanked(text)))
    scopes, start, i = [], 0, 0  # names of the namespaces around; "" is an anonymous one

    def of(declaration):
        if everything or "" in scopes or "static" in [token for token, _ in declaration]:
            for name, line, what in declared(declaration):
                yield "::".join(filter(None, scopes)), name, line, what

    while i < len(tokens):
        token = tokens[i][0]
        words = [word for word, _ in tokens[start:i]]
        if token == "{" and "namespace" in words[:2]:
            scopes.append("".join(words[words.index("namespace") + 1 :]))
            i = start = i + 1
        elif token == "{" and words[:1] == ["extern"]:
            scopes.append(scopes[-1] if scopes else "::")
            i = start = i + 1
        elif token == "}":
            if scopes:
                scopes.pop()
            i = start = i + 1
        elif token == ";":
            yield from of(tokens[start : i + 1])
            i = start = i + 1
        elif token == "{":
            end = end_of(tokens, i)
            if is_function(tokens[start:i]):  # types and braces of variables go on to a `;`
                yield from of(tokens[start : i + 1])
                start = end
            i = end
        elif token in "([":
            i = end_of(tokens, i)
        else:
            i += 1


def clash(one, other):
    """Whether a translation unit cannot declare, or not use, a name as both of these: aliases may
    be repeated, functions overloaded unless a call fits both."""
    if one is None or other is None or type(one) is not type(other):
        return True
    if isinstance(one, str):
        return one != other
    needed = max(one[1], other[1])
    return len(one[0]) >= needed <= len(other[0]) and one[0][:needed] == other[0][:needed]


def repeated_names(sources, headers=()):
    """What is wrong with the files of one unity build, given as (path, text): names of a source's
    own that another source has, or a header, which others may bring into its translation unit."""
    seen = {}
    for path, text in headers:
        for namespaces, name, line, what in names_in(text, everything=True):
            seen.setdefault((namespaces, name), []).append((path, line, what))
    for path, text in sources:
        for namespaces, name, line, what in names_in(text):
            others = seen.setdefault((namespaces, name), [])
            for other, at, theirs in others:
                if other != path and clash(what, theirs):
                    yield (
                        f"{path}:{line}: {name} is a name of {other}:{at}, too, and one unity "
                        "build may hold both files: share it in a header, or rename one"
                    )
                    break
            others.append((path, line, what))
