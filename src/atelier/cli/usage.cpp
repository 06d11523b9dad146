#include "atelier/cli/usage.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <regex>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "atelier/core/schema.h"

namespace atelier::cli {

namespace {

constexpr std::int64_t greatest_integer = std::numeric_limits<std::int64_t>::max();

/// The valid values of an option, parsed from CLI11's type names and checks.
struct NumberRange {
    bool whole = false, exclusive = false;
    std::string least, most;  // as written; empty: unbounded
};

std::optional<NumberRange> range_of(const CLI::Option& option) {
    const std::string type = option.get_type_name();
    NumberRange range;
    if (type.starts_with("UINT")) range.whole = true, range.least = "0";
    else if (type.starts_with("INT")) range.whole = true;
    else if (!type.starts_with("FLOAT")) return std::nullopt;
    static const std::regex bounds(R"(in \[(\S+) - (\S+)\])");
    std::smatch found;
    if (type.find("NONNEGATIVE") != type.npos) range.least = "0";
    if (type.find("POSITIVE") != type.npos) range.exclusive = true, range.least = "0";
    if (std::regex_search(type, found, bounds)) range.least = found[1], range.most = found[2];
    return range;
}

std::string range_text(const NumberRange& range) {
    const std::string kind = range.whole ? "a whole number" : "a number";
    if (range.exclusive) return kind + " above " + range.least;
    if (!range.least.empty() && !range.most.empty())
        return fmt::format("{} from {} to {}", kind, range.least, range.most);
    if (!range.least.empty()) return fmt::format("{} from {} upwards", kind, range.least);
    return kind;
}

/// Empty if `text` is a number in the range, else an error message.
std::string problem_of(const std::string& text, const NumberRange& range) {
    const std::string shown = text.size() > 60 ? text.substr(0, 60) + "..." : text;
    const char* first = text.data() + (text.starts_with('+') ? 1 : 0);
    const char* end = text.data() + text.size();
    double value = 0;
    const auto real = std::from_chars(first, end, value);
    if (real.ec == std::errc::invalid_argument || real.ptr != end || std::isnan(value))
        return fmt::format("\"{}\" is not a number; give {}", shown, range_text(range));
    bool fits = real.ec == std::errc();
    if (range.whole) {
        std::int64_t integer = 0;
        const auto whole = std::from_chars(first, end, integer);
        if (whole.ec == std::errc() && whole.ptr != end)
            return fmt::format("\"{}\" is not a whole number; give {}", shown, range_text(range));
        fits = whole.ec == std::errc();
    }
    if (fits && !range.least.empty())
        fits = range.exclusive ? value > std::strtod(range.least.c_str(), nullptr)
                               : value >= std::strtod(range.least.c_str(), nullptr);
    if (fits && !range.most.empty()) fits = value <= std::strtod(range.most.c_str(), nullptr);
    if (!fits && range.whole && range.most.empty())
        return fmt::format("{} is out of range; give a whole number from {} to {}", shown,
                           range.least.empty() ? "-2^63" : range.least, "2^63-1");
    return fits ? "" : fmt::format("{} is out of range; give {}", shown, range_text(range));
}

/// Names of files must not be empty. Other values may be: prompts, and --classifier "" for none.
bool may_be_empty(const CLI::Option& option) {
    if (option.get_positional())
        return option.get_name(true) == "TEXT" || option.get_name(true) == "NAMES";
    return std::ranges::none_of(option.get_lnames(), [](const std::string& name) {
        return name == "out" || name == "in" || name == "save-reference";
    });
}

std::vector<std::string> option_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::Option* option : app.get_options()) {
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
    return names;
}

/// The parsed command, or the program itself.
const CLI::App& parsed_command(const CLI::App& app) {
    const auto parsed = app.get_subcommands();
    return parsed.empty() ? app : *parsed.front();
}

std::string joined_choices(std::string text) {
    std::vector<std::string> words = CLI::detail::split(text, ',');
    return fmt::format("{}", fmt::join(words, ", "));
}

/// Message about unexpected arguments: an unknown option, or an extra word.
std::string unexpected_arguments(const std::vector<std::string>& arguments,
                                 const CLI::App& command) {
    for (const std::string& argument : arguments) {
        if (!argument.starts_with('-')) continue;
        const std::string name = argument.substr(0, argument.find('='));
        return fmt::format("there is no option {}{}", name,
                           core::did_you_mean(name, option_names(command)));
    }
    return fmt::format("\"{}\" is not expected here", fmt::join(arguments, " "));
}

class HelpFormatter final : public CLI::Formatter {
public:
    std::string make_option_opts(const CLI::Option* option) const override {
        if (option->get_type_size() == 0) return "";
        std::string text = " ";
        const std::string type = option->get_type_name();
        text += type.substr(0, type.find(':'));
        if (const auto range = range_of(*option);
            range && (!range->least.empty() || !range->most.empty())) {
            text = range->whole ? " INT" : " FLOAT";
            if (range->exclusive) text += " above " + range->least;
            else if (range->most.empty()) text += ", " + range->least + " or more";
            else text += fmt::format(" {}..{}", range->least, range->most);
        } else if (const std::size_t choices = type.find('{'); choices != type.npos) {
            text = " " + type.substr(choices);
        }
        if (option->get_expected_max() == CLI::detail::expected_max_vector_size) text += " ...";
        if (option->get_required()) text += " REQUIRED";
        const std::string standard = option->get_default_str();
        if (!standard.empty() && standard != "[]" && standard != "{}" && standard != "\"\"")
            text += fmt::format(" [default: {}]", standard);
        for (const CLI::Option* needed : option->get_needs()) text += " with " + needed->get_name();
        return text;
    }
};

}  // namespace

void add_common_checks(CLI::App& app) {
    for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
        for (CLI::Option* option : command->get_options()) {
            if (option->get_type_size() == 0 || option->get_items_expected_max() == 0) continue;
            if (const auto range = range_of(*option)) {
                option->transform(CLI::Validator(
                    [range](std::string& text) { return problem_of(text, *range); }, ""));
            } else if (!may_be_empty(*option)) {
                option->transform(CLI::Validator(
                    [](std::string& text) {
                        return text.empty() ? std::string("must not be empty") : std::string();
                    },
                    ""));
            }
        }
    }
}

std::shared_ptr<CLI::FormatterBase> help_formatter() { return std::make_shared<HelpFormatter>(); }

void add_shard_option(CLI::App& command, std::string& shard, const std::string& what) {
    command
        .add_option("--shard", shard,
                    "make only part r of W (r from 1) of the " + what +
                        "; auto/W: r from the variables of a job array, auto: of Slurm's also W")
        ->type_name("r/W");
}

CLI::Range seed_range() { return CLI::Range(std::int64_t{0}, greatest_integer); }

std::string parse_error_message(const CLI::ParseError& error, const CLI::App& app) {
    const CLI::App& command = parsed_command(app);
    const std::string raw = error.what();
    std::string text = raw;
    std::smatch found;
    static const std::regex choice(R"(^(\S+): (.*) not in \{(.*)\}$)"),
        missing(R"(^(\S+): 1 required (\S*).* missing$)"),
        repeated(R"(^(\S+): At Most 1 required but received (\d+)$)"),
        convert(R"(^Could not convert: (\S+) = (.*)$)");
    const std::vector<std::string> left = app.remaining(true);
    const bool unknown_option =
        std::ranges::any_of(left, [](const std::string& word) { return word.starts_with('-'); });
    if (!left.empty() &&
        (unknown_option || dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr ||
         &command == &app)) {
        text = unexpected_arguments(left, command);
    } else if (std::regex_match(raw, found, choice)) {
        text = fmt::format("{}: \"{}\" is not one of {}", found[1].str(), found[2].str(),
                           joined_choices(found[3]));
    } else if (std::regex_match(raw, found, missing)) {
        text = fmt::format("{}: a value is missing", found[1].str());
    } else if (std::regex_match(raw, found, repeated)) {
        text = fmt::format("{} is given {} times; give it once", found[1].str(), found[2].str());
    } else if (std::regex_match(raw, found, convert)) {
        text = fmt::format("{}: \"{}\" is not a valid value", found[1].str(), found[2].str());
    } else if (&command == &app && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
        text = "a command is needed, as in atelier sample";
    }
    return fmt::format("{}; see {} --help", text,
                       &command == &app ? "atelier" : "atelier " + command.get_name());
}

}  // namespace atelier::cli
