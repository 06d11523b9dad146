#include "atelier/networks/network.h"

#include "networks/network_fixtures.h"

namespace atelier::networks {

TEST(Network, an_unknown_architecture_is_reported_with_the_nearest_known_one) {
    const std::string message = config_error({{"architecture", "adm_unett"}});
    for (const char* part : {"config.json", "\"adm_unett\"", "did you mean \"adm_unet\"?", "mlp"})
        backends::expect_contains(message, part);
    backends::expect_contains(config_error({{"dimensions", 2}}), "architecture");
}

TEST(Network, every_listed_architecture_has_a_builder) {
    ASSERT_FALSE(architectures().empty());
    for (const std::string& name : architectures()) {
        // Without its keys a builder reports a missing key, not an unknown name.
        EXPECT_EQ(config_error({{"architecture", name}}).find("is unknown"), std::string::npos)
            << name;
    }
}

TEST(Network, trace_counts_the_work_of_one_sample) {
    const Network network = network_of(
        {{"architecture", "mlp"}, {"dimensions", 2}, {"classes", 3}, {"hidden", 8}, {"blocks", 2}});
    // input, map_noise, map_label, then three square layers per block, output.
    EXPECT_EQ(trace(network).flops, 2.0 * (2 * 8 + 8 * 8 + 3 * 8 + 2 * 3 * 8 * 8 + 8 * 2));
}

}  // namespace atelier::networks
