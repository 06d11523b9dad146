#include "atelier/report/comparison.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "atelier/metrics/measuring.h"

/// Renders results as tables.
namespace atelier::report {

namespace {

/// "1" for one-step models, "35 (heun)" for other samplers.
std::string evaluations_text(const nlohmann::json& result) {
    const std::string count = result.at("evaluations").dump();
    const nlohmann::json protocol = result.value("protocol", nlohmann::json::object());
    const nlohmann::json& model =
        protocol.contains("model") && protocol["model"].is_object() ? protocol["model"] : protocol;
    const std::string sampler = model.value("sampler", protocol.value("sampler", "one-step"));
    return sampler == "one-step"
               ? count
               : fmt::format("{} ({})", count, sampler.substr(0, sampler.find(',')));
}

/// "0.829 M", and of networks of fewer than ten thousand "826".
std::string parameters_text(double count) {
    constexpr double few = 1e4;
    return count < few ? fmt::format("{:.0f}", count) : fmt::format("{:.3g} M", count / 1e6);
}

std::string latency_text(const nlohmann::json& result) {
    if (!result.contains("latency")) return "-";
    return fmt::format("{:.2f}", 1000 * result["latency"]["median_seconds"].get<double>());
}

/// "protocol edm: 50000 samples, 1 seed, classes uniform, independent", common to all results, or
/// per result where they differ; results without a protocol name are skipped.
std::string protocol_text(const nlohmann::json& results) {
    std::vector<std::pair<std::string, std::string>> descriptions;
    for (const auto& name : results.at("order")) {
        const nlohmann::json protocol = results.at("models")
                                            .at(name.get<std::string>())
                                            .value("protocol", nlohmann::json::object());
        if (!protocol.contains("name")) continue;
        std::string text =
            fmt::format("protocol {}: {} samples", protocol.at("name").get<std::string>(),
                        protocol.value("count", 0));
        if (const auto seeds = protocol.value("seeds", nlohmann::json::array()); seeds.size() > 1)
            text += fmt::format(", {} seeds", seeds.size());
        if (protocol.contains("reference"))
            text += fmt::format(
                " against {}", protocol["reference"].value("count", 0) > 0
                                   ? fmt::format("{} real ones",
                                                 protocol["reference"]["count"].get<std::int64_t>())
                                   : "statistics");
        for (const char* key : {"classes", "size", "resize", "caption_prefix"}) {
            if (protocol.contains(key))
                text += fmt::format("; {} {}", key,
                                    protocol[key].is_string() ? protocol[key].get<std::string>()
                                                              : protocol[key].dump());
        }
        descriptions.emplace_back(name.get<std::string>(), text);
    }
    if (descriptions.empty()) return "";
    const bool same = std::ranges::all_of(
        descriptions, [&](const auto& one) { return one.second == descriptions.front().second; });
    if (same && descriptions.size() == results.at("order").size())
        return descriptions.front().second;
    std::string all;
    for (const auto& [name, text] : descriptions)
        all += fmt::format("{}{}, {}", all.empty() ? "" : "\n", name, text);
    return all;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> metric_columns(const nlohmann::json& results) {
    static const std::vector<std::pair<std::string, std::string>> known{
        {"fdr", "FDr\u00a0↓"},
        {"fid", "FID\u00a0↓"},
        {"kid", "KID\u00a0↓"},
        {"mind", "MIND\u00a0↓"},
        {"inception_score", "Inception Score\u00a0↑"},
        {"feature_distance", "feature distance\u00a0↓"},
        {"kernel_feature_distance", "kernel distance\u00a0↓"},
        {"monge_feature_distance", "Monge distance\u00a0↓"},
        {"dinov2_distance", "DINOv2 distance\u00a0↓"},
        {"kernel_dinov2_distance", "kernel DINOv2 distance\u00a0↓"},
        {"monge_dinov2_distance", "Monge DINOv2 distance\u00a0↓"},
        {"clip_distance", "CLIP distance\u00a0↓"},
        {"kernel_clip_distance", "kernel CLIP distance\u00a0↓"},
        {"monge_clip_distance", "Monge CLIP distance\u00a0↓"},
        {"pixel_distance", "pixel distance\u00a0↓"},
        {"kernel_pixel_distance", "kernel pixel distance\u00a0↓"},
        {"monge_pixel_distance", "Monge pixel distance\u00a0↓"},
        {"sliced_wasserstein", "sliced Wasserstein\u00a0↓"},
        {"mmd_squared", "MMD²\u00a0↓"},
        {"modes_reached", "modes reached\u00a0↑"},
        {"worst_mode", "worst mode's share\u00a0↑"},
        {"strays", "strays\u00a0↓"},
        {"clip_score", "CLIP score\u00a0↑"},
        {"precision", "precision\u00a0↑"},
        {"recall", "recall\u00a0↑"},
        {"density", "density\u00a0↑"},
        {"coverage", "coverage\u00a0↑"},
        {"class_agreement", "class agreement\u00a0↑"},
        {"paraphrase_stability", "paraphrases to one student\u00a0↑"}};
    // Attributes of captions have the names that the user gave them.
    constexpr std::string_view suffix = "_agreement";
    std::set<std::string> attributes;
    for (const auto& [name, result] : results.at("models").items()) {
        for (const auto& [key, value] : result.at("metrics").items()) {
            if (key.ends_with(suffix) && key != "class_agreement" && key != "mean_agreement")
                attributes.insert(key);
        }
    }
    std::vector<std::pair<std::string, std::string>> columns = known;
    const auto add = [&](const std::string& key) {
        columns.insert(std::prev(columns.end()),
                       {key, key.substr(0, key.size() - suffix.size()) + " agreement\u00a0↑"});
    };
    for (const std::string& key : attributes) add(key);
    if (attributes.size() > 1) add("mean_agreement");
    std::vector<std::pair<std::string, std::string>> present;
    for (const auto& figure : columns) {
        for (const auto& [name, result] : results.at("models").items()) {
            if (result.at("metrics").contains(figure.first)) {
                present.push_back(figure);
                break;
            }
        }
    }
    return present;
}

Table comparison_table(const nlohmann::json& results) {
    Table table;
    const auto has = [&](const char* key) {
        return std::ranges::any_of(results.at("models"), [key](const nlohmann::json& result) {
            return result.contains(key);
        });
    };
    const bool parameters = has("parameters"), evaluations = has("evaluations"),
               latency = has("latency");
    table.columns = {"model"};
    if (parameters) table.columns.emplace_back("parameters");
    if (evaluations) table.columns.emplace_back("evaluations");
    if (latency) table.columns.emplace_back("ms per sample");
    const auto figures = metric_columns(results);
    for (const auto& [key, text] : figures) table.columns.push_back(text);
    for (const auto& name : results.at("order")) {
        const nlohmann::json& result = results.at("models").at(name.get<std::string>());
        std::vector<std::string> row{name.get<std::string>()};
        if (parameters)
            row.push_back(result.contains("parameters")
                              ? parameters_text(result["parameters"].get<double>())
                              : "-");
        if (evaluations)
            row.push_back(result.contains("evaluations") ? evaluations_text(result) : "-");
        if (latency) row.push_back(latency_text(result));
        for (const auto& [key, text] : figures)
            row.push_back(mean_and_spread(result.at("metrics"), key));
        table.rows.push_back(row);
    }
    table.caption = protocol_text(results);
    return table;
}

std::string text_of(const Table& table) {
    std::string text;
    for (std::size_t column = 0; column < table.columns.size(); ++column) {
        text += fmt::format("{:<24}", table.columns[column]);
        for (const auto& row : table.rows) text += fmt::format("  {:>18}", row[column]);
        text += "\n";
    }
    if (!table.caption.empty()) text += table.caption + "\n";
    return text;
}

}  // namespace atelier::report
