"""Tests that the checker of pages finds one broken example of each kind and accepts the valid one.

python3 tests/docs/pages_test.py
"""

import pathlib
import tempfile
import unittest

import pages

OPTIONS = {"": {"-h", "--help", "--version"}, "sample": {"--count", "--out"}, "run": {"--dry-run"}}


class Pages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "configs").mkdir()
        (self.root / "configs/toy.toml").touch()
        (self.root / "other.md").write_text(
            "# A `heading`, twice\n\n# A heading, twice\n\n    # no heading\n"
        )
        self.page = self.root / "page.md"
        self.page.touch()

    def links(self, text):
        return len(list(pages.broken_links(self.page, text)))

    def commands(self, text):
        return len(list(pages.wrong_commands(self.page, text, OPTIONS)))

    def test_a_link_to_a_missing_file_is_found(self):
        self.assertEqual(
            self.links("[there](other.md), [gone](gone.md), [far](https://example.org/gone)"), 1
        )

    def test_a_missing_picture_is_found(self):
        self.assertEqual(self.links("![a picture](images/gone.png)"), 1)

    def test_an_anchor_without_its_heading_is_found(self):
        self.assertEqual(
            self.links(
                "[1](other.md#a-heading-twice) [2](other.md#a-heading-twice-1) [own](#mine)\n## "
                "Mine"
            ),
            0,
        )
        self.assertEqual(
            self.links(
                "[3](other.md#a-heading-twice-2) [own](#mine) [comment](other.md#no-heading)"
            ),
            3,
        )

    def test_code_holds_no_links(self):
        self.assertEqual(
            self.links("`[x](gone.md)`\n\n    [x](gone.md)\n\n```\n[x](gone.md)\n```\n"), 0
        )

    def test_a_missing_config_is_found_in_prose_and_in_code(self):
        text = (
            "`configs/toy.toml` and\n\n    atelier run configs/gone.toml\n\nand "
            "configs/gone.toml; build/configs/gone.toml is another's"
        )
        self.assertEqual(len(list(pages.missing_files(self.root, self.page, text))), 2)

    def test_a_page_that_nobody_has_is_found_in_any_file(self):
        (self.root / "docs").mkdir()
        (self.root / "docs/here.md").touch()
        file = self.root / "source.cpp"
        file.write_text(
            "// other.md, docs/here.md, here.md, see https://example.org/far.md\n// gone.md "
            "section 6, docs/gone.md\n"
        )
        self.assertEqual(len(list(pages.missing_pages(self.root, file, file.read_text()))), 2)
        self.assertIn(file, list(pages.texts_of(self.root)))

    def test_an_unknown_subcommand_is_found(self):
        self.assertEqual(
            self.commands(
                "```\nbuild/release/atelier sample m --out x.png\natelier simple m\n```\n"
            ),
            1,
        )
        self.assertEqual(
            self.commands(
                "text\n\n    for k in 0 1; do\n      CUDA_VISIBLE_DEVICES=$k atelier simple m &\n "
                "   done\n"
            ),
            1,
        )
        self.assertEqual(
            self.commands(
                "`atelier simple m` in prose, and `atelier run` and `atelier COMMAND`, and "
                "atelier itself"
            ),
            1,
        )

    def test_an_unknown_option_is_found(self):
        self.assertEqual(
            self.commands(
                "```\natelier -q sample m --count -1 --out=x.png  # not --number\natelier "
                "--version\n```\n"
            ),
            0,
        )
        self.assertEqual(self.commands("```\natelier sample m --number 3\n```\n"), 1)
        self.assertEqual(
            self.commands(
                "```\natelier sample m \\\n  --count 3 --number 3 | head --lines 3\n```\n"
            ),
            1,
        )

    def test_an_unknown_key_of_a_config_is_found(self):
        keys = pages.keys_in("seed   whole number   0\n\n[dm]\nsteps  whole number  1\n")
        self.assertEqual(keys, {"seed", "dm.steps"})
        text = (
            "```\natelier run c.toml seed=1 dm.steps=3 dm.stops=3\natelier classifier c.toml "
            "width=3\n```\n"
        )
        self.assertEqual(len(list(pages.wrong_keys(self.page, text, keys))), 1)

    def test_a_message_that_no_source_says_is_found(self):
        sources = [
            pages.plain_source('fail("{}: \\"{}\\" is wrong; "\n     "mend it", path)'),
            'warn("{}: broken")',
        ]
        said = '**`x.png: "…" is wrong; mend it`**\n**`…: broken`**\n'.replace("x.png", "…")
        self.assertEqual(list(pages.unknown_messages(self.page, said, sources)), [])
        self.assertEqual(
            len(
                list(
                    pages.unknown_messages(
                        self.page, "**`…: is wrong; mend it, broken`**\n", sources
                    )
                )
            ),
            1,
        )
        self.assertEqual(
            len(
                list(
                    pages.unknown_messages(self.page, "**`is wrong; mend it … broken`**\n", sources)
                )
            ),
            1,
        )

    def test_a_name_that_the_code_does_not_have_is_found(self):
        names = pages.Names(
            [
                "namespace atelier::data {\n// struct Gone {};\nstruct Base { int base; };\n"
                "class Spec final : public Base {\n    enum class Kind { points };\n};\n"
                "int size(models::Other one);\n}\nstruct Settings { double weight; };\n"
            ],
            ["struct Trainer { void match(); };"],
        )
        there = (
            "`data::Spec`, `Spec::Kind`, `Spec::base`, `data::size(x)`, `Settings::weight`, "
            "`Trainer::match`, `std::any`, `atelier::atelier`\n"
        )
        self.assertEqual(list(pages.unknown_names(self.page, there, names)), [])
        gone = "`ops::Spec`, `data::Gone`, `data::Other`, `Settings::points`, `Trainer::gone`\n"
        self.assertEqual(len(list(pages.unknown_names(self.page, gone, names))), 5)

    def test_a_source_file_that_is_gone_is_found(self):
        (self.root / "src/atelier/data").mkdir(parents=True)
        (self.root / "src/atelier/data/points.cpp").touch()
        (self.root / "data").mkdir()
        (self.root / "data/mine").mkdir()
        text = (
            "`data/points`, `data/points.cpp`, `data/p*.cpp`, `data/`, `data/mine`, "
            "`other/gone.cpp`\n`data/gone`, `data/points.h`, `data/q*.cpp`\n"
        )
        self.assertEqual(len(list(pages.missing_sources(self.root, self.page, text))), 3)

    def test_what_no_page_names_is_found(self):
        explanation = (
            'seed  whole number  0  seed of all\n\n[data]\npath  string  ""  a .safetensors of '
            "points, a folder of IDX files or toy:NAME\n\n[dm]\nloss  string  \"kl\"  which "
            '(one of "kl", "sid")\nfake_lr  number  1.0  rate (at least 0)\n'
        )
        helps = {"": "  -q,--quiet\n", "run": "  --dry-run\n  --hours FLOAT\n"}
        keys = pages.keys_in(explanation)
        found = lambda *texts: list(
            pages.undocumented(texts, helps, keys, pages.choices_in(explanation))
        )
        whole = [
            "Points (.safetensors), IDX files or `toy:ring`.\n",
            "`data.path`, `seed`, `loss` is kl or sid, `lr`.\n",
            "\n    atelier run x --dry-run --hours 3 --quiet\n",
        ]
        self.assertEqual(found(*whole), [])
        for page, word, problem in [
            (0, ".safetensors", ".safetensors, a value of data.path"),
            (0, "IDX", "IDX, a value of data.path"),
            (0, "toy:", "toy:, a value of data.path"),
            (1, "sid", "sid, a value of dm.loss"),
            (1, "`seed`", "the config key seed"),
            (1, "`lr`", "the config key dm.fake_lr"),
            (2, "atelier run", "the command atelier run"),
            (2, "--hours", "--hours of atelier run"),
            (2, "--quiet", "--quiet of atelier"),
        ]:
            texts = list(whole)
            texts[page] = texts[page].replace(word, "it")
            self.assertEqual(found(*texts), [f"docs: no page names {problem}"])
        # Not in prose, where `loss` and `path` are words of the language, and not within others.
        words = "`reseed` the loss, `lr`, kl, sid, `path`"
        self.assertEqual(len(found(whole[0], whole[2], words)), 2)

    def test_an_entry_that_is_there_twice_is_found(self):
        text = "# Changes\n- One\n  thing.\n- Another.\n- One\n  thing.\n- One\n  more.\n"
        self.assertEqual(len(list(pages.repeated_entries(self.page, text))), 1)

    def test_help_without_examples_or_with_wrong_ones_is_found(self):
        helps = {
            "": "Begin with:\n  atelier run x\n",
            "run": "  --dry-run\nExample:\n  atelier run x --dry-run\n",
            "sample": "  --out TEXT\nExample:\n  atelier run x --dry\n",
        }
        self.assertEqual(
            list(pages.without_examples(helps)), ["atelier sample --help: has no example"]
        )
        self.assertEqual(
            list(pages.wrong_examples(helps)),
            ["atelier sample --help: atelier run has no option --dry"],
        )


if __name__ == "__main__":
    unittest.main()
