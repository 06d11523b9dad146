#include "atelier/report/comparison.h"

#include <gtest/gtest.h>

namespace atelier::report {
namespace {

TEST(ComparisonTable, has_no_column_of_dashes_and_names_the_protocol) {
    const nlohmann::json metric{{"mean", 1.5}, {"spread", nullptr}};
    nlohmann::json brought{{"metrics", {{"fid", metric}}},
                           {"protocol",
                            {{"name", "edm"},
                             {"count", 100},
                             {"reference", {{"count", 50}}},
                             {"classes", "uniform, independent"}}}};
    const Table images = comparison_table({{"order", {"x"}}, {"models", {{"x", brought}}}});
    EXPECT_EQ(images.columns, (std::vector<std::string>{"model", "FID\u00a0↓"}));
    EXPECT_EQ(images.caption,
              "protocol edm: 100 samples against 50 real ones; classes uniform, independent");
    EXPECT_NE(text_of(images).find("protocol edm"), std::string::npos);

    nlohmann::json drawn = brought;
    drawn.update({{"parameters", 2'500'000}, {"evaluations", 1}});
    drawn["protocol"]["name"] = "dmd2";
    const Table both =
        comparison_table({{"order", {"m", "x"}}, {"models", {{"x", brought}, {"m", drawn}}}});
    EXPECT_EQ(both.columns,
              (std::vector<std::string>{"model", "parameters", "evaluations", "FID\u00a0↓"}));
    EXPECT_EQ(both.rows[0], (std::vector<std::string>{"m", "2.5 M", "1", "1.5"}));
    EXPECT_EQ(both.rows[1][1], "-");
    EXPECT_NE(both.caption.find("m, protocol dmd2"), std::string::npos) << both.caption;
    EXPECT_NE(both.caption.find("x, protocol edm"), std::string::npos) << both.caption;
}

}  // namespace
}  // namespace atelier::report
