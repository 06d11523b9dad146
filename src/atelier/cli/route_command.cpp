#include <CLI/CLI.hpp>
#include <iostream>

#include "atelier/cli/commands.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/core/error.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/models/ensemble.h"

namespace atelier::cli {

namespace {

struct RouteArguments {
    std::string subject, embeddings;
    std::vector<std::int64_t> classes;
    std::vector<std::string> prompts;
    bool json = false;
};

nlohmann::json routed_classes(const RouteArguments& arguments) {
    const models::Ensemble ensemble = models::read_ensemble(arguments.subject);
    if (ensemble.prompts) throw core::UsageError("--class: " + arguments.subject + " reads prompts; ask with --prompt");
    const conditions::Router router(ensemble.partition);
    nlohmann::json rows = nlohmann::json::array();
    for (const std::int64_t id : arguments.classes) rows.push_back({{"class", id}, {"student", router.route(id)}});
    return rows;
}

nlohmann::json routed_prompts(const RouteArguments& arguments) {
    const conditions::Router router = conditions::read_prompt_partition(arguments.subject).router();
    const conditions::Embeddings embeddings(arguments.embeddings);
    nlohmann::json rows = nlohmann::json::array();
    std::vector<float> row(embeddings.length());
    for (std::int64_t i = 0; i < embeddings.rows(); ++i) {
        embeddings.unit_row(i, row);
        const auto place = router.place(row);
        rows.push_back({{"row", i}, {"student", place.student}, {"score", place.score}, {"margin", place.margin}});
        if (place.runner_up >= 0) rows.back()["runner_up"] = place.runner_up;
    }
    return rows;
}

/// Prompts in words, for an ensemble that has a prompt encoder.
nlohmann::json routed_words(const RouteArguments& arguments) {
    const inference::PromptedGenerator generator(arguments.subject, std::nullopt, std::nullopt, {});
    const Tensor embeddings = generator.encoder().embed(arguments.prompts);
    nlohmann::json rows = nlohmann::json::array();
    for (std::size_t i = 0; i < arguments.prompts.size(); ++i) {
        const auto place = generator.place(embeddings[static_cast<std::int64_t>(i)]);
        rows.push_back({{"prompt", arguments.prompts[i]}, {"student", place.student}, {"score", place.score}, {"margin", place.margin}});
        if (place.runner_up >= 0) rows.back()["runner_up"] = place.runner_up;
    }
    return rows;
}

nlohmann::json routed(const RouteArguments& arguments) {
    const int kinds = !arguments.embeddings.empty() + !arguments.classes.empty() + !arguments.prompts.empty();
    if (kinds != 1) throw core::UsageError("give either --class (an ensemble of classes), --prompt (an ensemble that reads prompts) or --embeddings (a partition of prompts)");
    if (!arguments.prompts.empty()) return routed_words(arguments);
    return arguments.embeddings.empty() ? routed_classes(arguments) : routed_prompts(arguments);
}

void route(const RouteArguments& arguments) {
    const nlohmann::json rows = routed(arguments);
    if (arguments.json) {
        std::cout << rows.dump(2) << '\n';
        return;
    }
    for (const auto& row : rows) {
        if (row.contains("class")) std::cout << fmt::format("class {}: student {}\n", row["class"].get<std::int64_t>(), row["student"].get<std::int64_t>());
        else if (row.contains("prompt")) std::cout << fmt::format("\"{}\": student {}, margin {:.3f}\n", row["prompt"].get<std::string>(), row["student"].get<std::int64_t>(), row["margin"].get<double>());
        else std::cout << fmt::format("row {}: student {}, margin {:.3f}\n", row["row"].get<std::int64_t>(), row["student"].get<std::int64_t>(), row["margin"].get<double>());
    }
}

}  // namespace

void add_route_command(CLI::App& app) {
    auto arguments = std::make_shared<RouteArguments>();
    CLI::App* command = app.add_subcommand("route", "Say which student owns a class or a prompt");
    command->add_option("SUBJECT", arguments->subject, "an ensemble directory, or a partition of prompts made by `atelier partition`")->required();
    command->add_option("--class", arguments->classes, "class ids, e.g. 3,5")->delimiter(',');
    command->add_option("--prompt", arguments->prompts, "prompts in words; may be repeated");
    command->add_option("--embeddings", arguments->embeddings, "prompts' embeddings, a row each: .npy [N,D], or safetensors with \"embeddings\"");
    command->add_flag("--json", arguments->json, "machine-readable output");
    command->footer("Examples:\n  atelier route models/fashion-mnist/k4 --class 0,7\n  atelier route models/captions --prompt \"a big black bag on white\"\n  atelier route prompts-k4 --embeddings unseen.npy --json");
    command->callback([arguments] { route(*arguments); });
}

}  // namespace atelier::cli
