#!/usr/bin/env python3
"""Tests that tests/form/check.py finds what it looks for, and nothing else."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

import check
import names

LONG = "word " * 21


class Form(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        shutil.copy(check.ROOT / ".clang-format", self.folder)
        subprocess.run(["git", "init", "-q"], cwd=self.folder, check=True)

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def test_lines_that_could_be_wrapped_are_named(self):
        self.write("a.cpp", f"// {LONG}\nint a;\n")
        self.write("a.py", f"x = 1\n# {LONG}\n")
        self.write("README.md", f"# Title\n\n{LONG}\n\n- {LONG}\n")
        found = [problem.removeprefix(f"{self.folder}/") for problem in self.columns()]
        where = [problem.partition(": ")[0] for problem in found]
        self.assertEqual(where, ["README.md:3", "README.md:5", "a.cpp:1", "a.py:2"])

    def test_what_cannot_be_wrapped_may_be_wide(self):
        rows = [
            f"| {LONG} |",
            f"**`{LONG}`**",
            f"[{LONG}](docs/glossary.md)",
            "https://" + "a" * 120,
        ]
        self.write("README.md", "\n\n".join([*rows, f"```\n{LONG}\n```", f"    {LONG}"]) + "\n")
        self.assertEqual(self.columns(), [])

    def test_files_of_another_layout_are_named(self):
        self.write("good.cpp", "int a = 1;\n")
        self.write("bad.cpp", "int  a=1;\n")
        found = check.layout_problems(self.folder)
        self.assertEqual(len(found), 1, found)
        self.assertIn("bad.cpp: is not laid out", found[0])

    def test_names_that_two_files_of_a_unity_build_have_are_named(self):
        one = "namespace a { namespace {\n%s\n} }\n"
        clashes = {
            "int f(int x) { return x; }": ["int f(int y) { return 0; }", "double f(int);"],
            "int f(int x = 1) { return x; }": ["int f() { return 0; }"],
            "struct S { int f; };": ["class S final : B {};", "int S(0);", "enum class S { a };"],
            "const std::map<int, int> m{{1, 2}}, n;": ["int n = 3;", "void m(T& t) {}"],
            "template <class T = A<B>> T g(T x) { return {}; }": ["template <class T> T g(T y) {}"],
            "using X = int;": ["using X = double;"],
            "constexpr auto h = [](int x) { return x; };": ["auto h() -> int { return 1; }"],
        }
        for first, others in clashes.items():
            for second in others:
                found = list(names.repeated_names([("a", one % first), ("b", one % second)]))
                self.assertEqual(len(found), 1, (first, second, found))
                self.assertTrue(found[0].startswith("b:2: "), found)
                self.assertIn(" a:2, too", found[0])
        static = [("a", "static int f() {}\n"), ("b", "static void f() {}\n")]
        self.assertEqual(len(list(names.repeated_names(static))), 1)
        # A header that another file brings along has names, too, and one file's own may repeat.
        header = [("h.h", "namespace a { inline int f(int x) { return x; } }\n")]
        clash = list(names.repeated_names([("a", one % "int f(int x) { return x; }")], header))
        self.assertEqual(len(clash), 1, clash)

    def test_names_that_compile_side_by_side_are_not_named(self):
        one = "namespace a { namespace {\n%s\n} }\n"
        apart = [
            ("int f(int x) { int y = x; return y; }", "int g(double y) { int x = 1; return x; }"),
            ("int f(A x) { return 1; }", "int f(B x) { return 1; }"),
            ("int f(A x, int n = 0) { return 1; }", "int f(B x) { return 1; }"),
            ("using X = int;", "using X = int;"),
            ("namespace fs = std::filesystem;", "namespace fs = std::filesystem;"),
            ("struct S { int f; };", "int f = 1;"),
            ("// struct S {};\n/* int f; */", "struct S {}; int f; auto s = \"int g;\", c = '\"';"),
            ("TEST(A, b) { int x; }", "TEST(A, c) { int x; }"),
            ("bool operator==(A a, A b) { return 1; }", "bool operator==(B a, B b) { return 1; }"),
            ("int A::f() { return 1; }", "int f() { return 1; }"),
        ]
        for first, second in apart:
            found = list(names.repeated_names([("a", one % first), ("b", one % second)]))
            self.assertEqual(found, [], (first, second))
        elsewhere = "namespace b { namespace {\n%s\n} }\n"
        for second in (elsewhere % "int f;", "namespace a { int f(); }"):
            self.assertEqual(
                list(names.repeated_names([("a", one % "int f;"), ("b", second)])), []
            )

    def test_unity_builds_are_modules_and_their_tests_without_what_is_compiled_alone(self):
        for name in ("src/atelier/core", "src/atelier/kernels", "tests/core", "tests/fuzz"):
            (self.folder / name).mkdir(parents=True)
        self.write("CMakeLists.txt", "set(kernels fast)\n")
        static = "static int f;\n"
        for name in ("core/a", "core/b", "kernels/fast", "kernels/slow"):
            self.write(f"src/atelier/{name}.cpp", static)
        for name in ("core/a_test", "core/b_test", "fuzz/a", "fuzz/b"):
            self.write(f"tests/{name}.cpp", static)
        found = check.name_problems(self.folder)
        where = [one.partition(": ")[0].removeprefix(f"{self.folder}/") for one in found]
        self.assertEqual(where, ["src/atelier/core/b.cpp:1", "tests/core/b_test.cpp:1"])

    def test_files_that_are_compiled_alone_are_known(self):
        alone = check.ALONE.search((check.ROOT / "CMakeLists.txt").read_text())[1].split()
        for name in alone:
            self.assertTrue((check.ROOT / f"src/atelier/kernels/{name}.cpp").is_file(), name)

    def test_files_that_differ_from_the_main_branch_are_found(self):
        self.write("same.cpp", "int a;\n")
        self.write("other.cpp", "int b;\n")
        self.git("add", "same.cpp", "other.cpp")
        self.git("commit", "-m", "x")
        self.git("branch", "-M", "main")
        self.git("checkout", "-b", "mine")
        self.write("other.cpp", "int c;\n")
        self.write("new.cpp", "int d;\n")
        names = {path.name for path in check.differing(self.folder)}
        self.assertLessEqual({"other.cpp", "new.cpp"}, names)
        self.assertNotIn("same.cpp", names)

    def test_clang_tidy_reads_what_differs_and_finds_what_is_wrong(self):
        self.write_project({"same": "int f() { return 1; }\n", "good": "", "bad": ""})
        self.assertEqual(self.tidied(), [])
        self.assertEqual(check.tidy_problems(everything=False, root=self.folder), [])
        self.write_project(
            {
                "good": "int* g() { return nullptr; }\n",
                "bad": "int* h() { return 0; }\n",  # modernize-use-nullptr
            }
        )
        self.assertEqual(self.tidied(), ["bad.cpp", "good.cpp"])
        found = check.tidy_problems(everything=False, root=self.folder)
        self.assertEqual(len(found), 1, found)
        self.assertIn("bad.cpp:1:19: error: use nullptr [modernize-use-nullptr", found[0])

    def test_clang_tidy_reads_the_source_of_a_header_that_differs(self):
        self.write_project({"a": "", "b": ""})
        self.write("src/atelier/core/a.h", "int f();\n")
        self.assertEqual(self.tidied(), ["a.cpp"])

    def test_without_git_clang_tidy_reads_nothing(self):
        shutil.rmtree(self.folder / ".git")
        (self.folder / "src/atelier/core").mkdir(parents=True)
        self.write("src/atelier/core/a.cpp", "int* h() { return 0; }\n")
        self.assertEqual(self.tidied(), [])

    def test_files_that_are_skipped_are_there(self):
        for name in check.SKIPPED:
            self.assertTrue((check.ROOT / "src/atelier" / name).is_file(), name)

    def test_a_missing_tool_is_said(self):
        with self.assertRaisesRegex(check.Missing, "scripts/setup.sh test"):
            check.tool("clang-format", self.folder)

    def git(self, *words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=self.folder, check=True, capture_output=True)

    def write_project(self, sources):
        """A library of sources of `core`; the first call commits it to the branch main."""
        core = self.folder / "src/atelier/core"
        first = not core.exists()
        core.mkdir(parents=True, exist_ok=True)
        for name, text in sources.items():
            (core / f"{name}.cpp").write_text(text)
        if not first:
            return
        shutil.copy(check.ROOT / ".clang-tidy", self.folder)
        (self.folder / ".venv").symlink_to(check.ROOT / ".venv")
        self.write(".gitignore", "/build/\n/.venv\n")
        self.write(
            "CMakeLists.txt",
            "cmake_minimum_required(VERSION 3.25)\nproject(a CXX)\n"
            "set(CMAKE_EXPORT_COMPILE_COMMANDS ON)\n"
            "file(GLOB sources src/atelier/core/*.cpp)\nadd_library(a ${sources})\n",
        )
        self.git("add", ".")
        self.git("commit", "-m", "x")
        self.git("branch", "-M", "main")

    def tidied(self):
        return [path.name for path in check.tidy_sources(everything=False, root=self.folder)]

    def columns(self):
        return check.column_problems(self.folder)


if __name__ == "__main__":
    unittest.main()
