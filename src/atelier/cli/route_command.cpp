#include <CLI/CLI.hpp>
#include <iostream>

#include "atelier/cli/class_ids.h"
#include "atelier/cli/commands.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/inference/pipeline.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"

namespace atelier::cli {

namespace {

struct RouteArguments {
    std::string subject, embeddings;
    std::vector<std::string> names, classes, prompts;
    bool json = false;
};

nlohmann::json routed_classes(const RouteArguments& arguments) {
    const models::Ensemble ensemble = models::read_ensemble(arguments.subject);
    if (ensemble.prompts)
        throw core::UsageError("--class: " + arguments.subject +
                               " reads prompts; ask with --prompt");
    const conditions::Router router(ensemble.partition);
    const auto& names = ensemble.spec.class_names;
    nlohmann::json rows = nlohmann::json::array();
    for (const std::int64_t id :
         class_ids(arguments.classes, names, ensemble.partition.classes())) {
        rows.push_back({{"class", id}, {"student", router.route(id)}});
        if (!names.empty()) rows.back()["name"] = names[static_cast<std::size_t>(id)];
    }
    return rows;
}

nlohmann::json routed_embeddings(const RouteArguments& arguments) {
    const conditions::Router router = conditions::read_prompt_partition(arguments.subject).router();
    const conditions::Embeddings embeddings(arguments.embeddings);
    nlohmann::json rows = nlohmann::json::array();
    std::vector<float> row(embeddings.length());
    for (std::int64_t i = 0; i < embeddings.rows(); ++i) {
        embeddings.unit_row(i, row);
        const auto decision = router.decide(row);
        rows.push_back({{"row", i},
                        {"student", decision.student},
                        {"score", decision.score},
                        {"margin", decision.margin}});
        if (decision.runner_up >= 0) rows.back()["runner_up"] = decision.runner_up;
    }
    return rows;
}

/// Routes prompts with the ensemble's own prompt encoder.
nlohmann::json routed_prompts(const RouteArguments& arguments) {
    const auto pipeline = inference::Pipeline::load(arguments.subject);
    if (!pipeline->reads_prompts())
        throw core::UsageError("--prompt: " + arguments.subject + " has classes; ask with --class");
    const auto decisions = pipeline->route(inference::conditions_of(arguments.prompts));
    for (const std::string& prompt : arguments.prompts)
        conditions::warn_about_prompt("--prompt", prompt, *pipeline->conditioner().tokenizer());
    nlohmann::json rows = nlohmann::json::array();
    for (std::size_t i = 0; i < arguments.prompts.size(); ++i) {
        const auto& decision = decisions[i];
        rows.push_back({{"prompt", arguments.prompts[i]},
                        {"student", decision.student},
                        {"score", decision.score},
                        {"margin", decision.margin}});
        if (decision.runner_up >= 0) rows.back()["runner_up"] = decision.runner_up;
    }
    return rows;
}

/// Assigns positional NAMES to prompts or classes, whichever the subject takes.
void assign_names(RouteArguments& arguments) {
    if (arguments.names.empty()) return;
    auto& to = inference::reads_prompts(arguments.subject) ? arguments.prompts : arguments.classes;
    to.insert(to.begin(), arguments.names.begin(), arguments.names.end());
}

nlohmann::json routed(RouteArguments& arguments) {
    using Kind = models::PathInfo::Kind;
    const bool is_partition =
        models::identify_path(arguments.subject).kind == Kind::prompt_partition;
    if (!is_partition) arguments.subject = models::model_at(arguments.subject).string();
    if (models::is_diffusers_directory(arguments.subject))
        throw core::UsageError(
            arguments.subject +
            ": is one model for all prompts; route asks who owns what in an ensemble");
    assign_names(arguments);
    const int kinds =
        !arguments.embeddings.empty() + !arguments.classes.empty() + !arguments.prompts.empty();
    if (kinds != 1)
        throw core::UsageError(
            "give either --class (an ensemble of classes), --prompt (an ensemble that reads "
            "prompts) or --embeddings (a partition of prompts)");
    if (is_partition && arguments.embeddings.empty())
        throw core::UsageError(arguments.subject +
                               ": is a partition of prompts without their encoder; ask with "
                               "--embeddings, as atelier embed makes them");
    if (!arguments.prompts.empty()) return routed_prompts(arguments);
    return arguments.embeddings.empty() ? routed_classes(arguments) : routed_embeddings(arguments);
}

void route(RouteArguments& arguments) {
    const nlohmann::json rows = routed(arguments);
    if (arguments.json) {
        std::cout << core::json_text(rows, 2) << '\n';
        return;
    }
    for (const auto& row : rows) {
        if (row.contains("class")) {
            const std::string name =
                row.contains("name") ? " (" + row["name"].get<std::string>() + ")" : "";
            std::cout << fmt::format("class {}{}: student {}\n", row["class"].get<std::int64_t>(),
                                     name, row["student"].get<std::int64_t>());
        } else if (row.contains("prompt"))
            std::cout << fmt::format(
                "\"{}\": student {}, margin {:.3f}\n", row["prompt"].get<std::string>(),
                row["student"].get<std::int64_t>(), row["margin"].get<double>());
        else
            std::cout << fmt::format(
                "row {}: student {}, margin {:.3f}\n", row["row"].get<std::int64_t>(),
                row["student"].get<std::int64_t>(), row["margin"].get<double>());
    }
}

}  // namespace

void add_route_command(CLI::App& app) {
    auto arguments = std::make_shared<RouteArguments>();
    CLI::App* command = app.add_subcommand("route", "Say which student owns a class or a prompt");
    command
        ->add_option("SUBJECT", arguments->subject,
                     "an ensemble, a run (its ensemble), or a partition of prompts made by "
                     "`atelier partition`")
        ->required();
    command->add_option("NAMES", arguments->names,
                        "classes by name or id, or prompts, whichever the ensemble takes");
    command->add_option("--class", arguments->classes, "classes by name or id, as in bag,3");
    command->add_option("--prompt", arguments->prompts, "prompts as text; may be repeated");
    command->add_option(
        "--embeddings", arguments->embeddings,
        "prompts' embeddings, one row each: .npy [N,D], or safetensors with \"embeddings\"");
    command->add_flag("--json", arguments->json, "machine-readable output");
    command->footer(
        "Examples:\n  atelier route models/fashion-mnist/k4 sneaker bag\n  atelier route "
        "models/fashion-mnist/k4 --class 0,7\n  atelier route models/captions --prompt \"a big "
        "black bag on white\"\n  atelier route prompts-k4 --embeddings unseen.npy --json");
    command->callback([arguments] { route(*arguments); });
}

}  // namespace atelier::cli
