#include <nlohmann/json.hpp>

#include "end_to_end/program.h"

namespace atelier::end_to_end {
namespace {

/// 120 embeddings of three kinds of prompts as a .npy file, with the prompts in a text file; row 7
/// is the empty prompt.
struct Prompts {
    explicit Prompts(const Folder& folder)
        : embeddings(folder / "prompts.npy"), lines(folder / "prompts.txt") {
        std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (120, 3), }";
        header.resize(117, ' ');
        header += '\n';
        std::ofstream file(embeddings, std::ios::binary);
        file << std::string("\x93NUMPY\x01\x00\x76\x00", 10) << header;
        std::ofstream words(lines);
        const char* kinds[]{"cat", "boat", "shoe"};
        for (int i = 0; i < 120; ++i) {
            float row[3];
            for (int d = 0; d < 3; ++d)
                row[d] = static_cast<float>((d == i % 3) + 0.2 * std::sin(i * 1.7 + d));
            file.write(reinterpret_cast<const char*>(row), sizeof row);
            words << (i == 7 ? std::string()
                             : kinds[i % 3] + std::string(" number ") + std::to_string(i))
                  << "\n";
        }
    }
    std::string embeddings, lines;
};

TEST(Prompts, are_partitioned_by_meaning_and_routed_consistently) {
    const Folder folder;
    const Prompts prompts(folder);
    const Outcome made =
        succeed({"partition", prompts.embeddings, "--prompts", prompts.lines, "--students", "3",
                 "--seed", "2", "--out", folder / "k3", "--json"});
    const auto summary = nlohmann::json::parse(made.out);
    EXPECT_EQ(summary.at("prompts"), 120);
    for (const auto& cell : summary.at("cells")) {
        EXPECT_EQ(cell.at("prompts"), 40);
        const std::string kind = cell.at("nearest").at(0).get<std::string>().substr(0, 4);
        for (const auto& prompt : cell.at("nearest")) {
            EXPECT_TRUE(prompt.get<std::string>().empty() ||
                        prompt.get<std::string>().starts_with(kind))
                << prompt;
        }
    }
    const auto routed = nlohmann::json::parse(
        succeed({"route", folder / "k3", "--embeddings", prompts.embeddings, "--json"}).out);
    ASSERT_EQ(routed.size(), 120u);
    for (std::size_t i = 0; i < 120; ++i)
        EXPECT_EQ(routed[i].at("student"), routed[i % 3].at("student"));
    EXPECT_EQ(summary.at("null_owner"), routed[7].at("student"));
    expect_contains(text_of(folder / "k3/report.html"), "boat number");
    expect_contains(succeed({"inspect", folder / "k3"}).out, "partition of prompts");
}

TEST(Prompts, that_do_not_match_their_embeddings_leave_nothing_behind) {
    const Folder folder;
    const Prompts prompts(folder);
    std::ofstream(prompts.lines, std::ios::app) << "one more\n";
    const Outcome outcome =
        run({"partition", prompts.embeddings, "--prompts", prompts.lines, "--out", folder / "k4"});
    EXPECT_EQ(outcome.code, 1);
    expect_contains(outcome.err, "121 lines");
    EXPECT_FALSE(fs::exists(folder / "k4"));
}

TEST(Prompts, truncation_and_markup_are_reported) {
    const Folder folder;
    std::string words = "a big red sneaker";
    for (int i = 0; i < 40; ++i) words += " and one";
    const Outcome cut = succeed(
        {"sample", "models/captions", "--prompt", words + " LAST", "--out", folder / "a.png"});
    expect_contains(cut.err,
                    "--prompt: the model reads 30 tokens; what is beyond them changes nothing: \"");
    expect_contains(cut.err, "and one LAST\"");
    succeed(
        {"sample", "models/captions", "--prompt", words + " ANOTHER", "--out", folder / "b.png"});
    const Outcome markup = succeed({"sample", "models/captions", "--prompt",
                                    "a (sneaker:1.3) on black", "--out", folder / "c.png"});
    expect_contains(markup.err, "\"(sneaker:1.3)\" is read like any other words");
    EXPECT_EQ(markup.err.find("changes nothing"), std::string::npos);
    expect_contains(succeed({"sample", "models/captions", "--prompt", "sneaker <lora:x:1>", "--out",
                             folder / "d.png"})
                        .err,
                    "\"<lora:x:1>\" is read");
    const Outcome plain = succeed({"sample", "models/captions", "--prompt",
                                   "a sneaker (small), 9:30", "--out", folder / "e.png"});
    EXPECT_EQ(plain.err.find("is read like"), std::string::npos) << plain.err;
}

}  // namespace
}  // namespace atelier::end_to_end
