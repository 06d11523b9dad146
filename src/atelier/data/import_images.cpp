#include "atelier/data/import_images.h"

#include <algorithm>
#include <charconv>
#include <map>

#include <fmt/ranges.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/core/zip_writer.h"

namespace atelier::data {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t images_per_batch = 256, headers_per_batch = 4096;
constexpr std::size_t version_digits = 12;

/// The name of image `i` as EDM's tool writes it.
std::string entry_name(std::int64_t i) { return fmt::format("{:05}/img{:08}.png", i / 1000, i); }

/// The index in such a name; nothing for other names.
std::optional<std::int64_t> number_in(const std::string& name) {
    const std::size_t position = name.find("/img");
    std::int64_t number = 0;
    if (position == name.npos ||
        std::from_chars(name.data() + position + 4, name.data() + name.size(), number).ec !=
            std::errc{})
        return std::nullopt;
    return name == entry_name(number) ? std::optional(number) : std::nullopt;
}

nlohmann::json json_of(const ImportSettings& settings) {
    const core::Colour& ground = settings.background;
    return {{"side", settings.side},
            {"channels", settings.channels},
            {"filter", core::name_of(settings.filter)},
            {"fit", settings.fit == Fit::pad ? "pad" : "crop"},
            {"background", fmt::format("#{:02x}{:02x}{:02x}", ground[0], ground[1], ground[2])}};
}

/// Identifies the archive: the settings and a short hash per image file, so that entries of files
/// that have changed since are detected.
std::string purpose_of(const EncodedImages& images, const ImportSettings& settings) {
    std::string versions;
    for (std::int64_t i = 0; i < images.count; ++i) {
        versions += core::sha256(images.version ? images.version(i)
                                                : fmt::format("{} {}", i, images.identity))
                        .substr(0, version_digits);
    }
    return nlohmann::json{{"settings", json_of(settings)}, {"files", versions}}.dump();
}

/// Accepts those entries of an older part file that have the same settings and the same image file.
core::ZipWriter::EntryCheck unchanged_since(const std::string& before, const std::string& now) {
    const auto none = [](const std::string&) { return false; };
    const nlohmann::json old = nlohmann::json::parse(before, nullptr, false),
                         current = nlohmann::json::parse(now);
    if (!old.is_object() || old.value("settings", nlohmann::json()) != current["settings"] ||
        !old.contains("files") || !old["files"].is_string())
        return none;
    return [was = old["files"].get<std::string>(),
            is = current["files"].get<std::string>()](const std::string& entry) {
        const auto number = number_in(entry);
        if (!number) return false;
        const std::size_t position = static_cast<std::size_t>(*number) * version_digits;
        return position < was.size() && position < is.size() &&
               was.compare(position, version_digits, is, position, version_digits) == 0;
    };
}

/// Error messages by image index.
using Problems = std::map<std::int64_t, std::string>;

void check_stop(const fs::path& to, std::int64_t done, std::int64_t count) {
    if (core::stop_requested()) {
        throw core::Interrupted(
            fmt::format("{}: stopped after {} of {} images; run the same command again to go on",
                        to.string(), done, count));
    }
}

/// Calls `work` concurrently for each position in `indices` and collects the exceptions it throws.
void collect_problems(std::span<const std::int64_t> indices,
                      const std::function<void(std::size_t position)>& work, Problems& problems) {
    std::vector<std::string> messages(indices.size());
    for_each_concurrently(static_cast<std::int64_t>(indices.size()), [&](std::int64_t i) {
        try {
            work(static_cast<std::size_t>(i));
        } catch (const core::Error& error) {
            messages[static_cast<std::size_t>(i)] = error.what();
        }
    });
    for (std::size_t i = 0; i < indices.size(); ++i) {
        if (!messages[i].empty()) problems.emplace(indices[i], std::move(messages[i]));
    }
}

Problems problems_of_headers(const EncodedImages& images, std::span<const std::int64_t> indices,
                             const fs::path& to, const ImportListener& listener) {
    Problems problems;
    if (!images.check) return problems;
    for (std::size_t first = 0; first < indices.size(); first += headers_per_batch) {
        check_stop(to, 0, images.count);
        const auto some = indices.subspan(
            first, std::min<std::size_t>(headers_per_batch, indices.size() - first));
        collect_problems(some, [&](std::size_t i) { images.check(some[i]); }, problems);
        if (listener.checked) listener.checked(static_cast<std::int64_t>(first + some.size()));
    }
    return problems;
}

[[noreturn]] void refuse(const EncodedImages& images, const Problems& problems, const char* when) {
    constexpr std::size_t most = 200;
    std::size_t warned = 0;
    for (const auto& [i, problem] : problems) {
        if (warned++ == most) break;
        core::log::warning_line(problem);
    }
    core::fail(
        "{}: {} of {} images cannot be read{}{}; repair or remove them and run the same "
        "command again, or leave them out with --skip-bad",
        images.where, problems.size(), images.count,
        problems.size() > most ? fmt::format(", the first {} of which are named above", most)
                               : ", named above",
        when);
}

std::vector<std::uint8_t> encode(const core::Image& image, const ImportSettings& settings) {
    const core::Image own = core::with_channels(image, settings.channels);
    const core::Image square =
        settings.fit == Fit::pad
            ? core::padded_square(own, settings.side, settings.filter, settings.background)
            : core::centre_crop(own, settings.side, settings.filter);
    return core::encode_png(square, {}, core::PngSize::smallest);
}

class Import {
public:
    Import(const EncodedImages& images, const fs::path& to, const ImportSettings& settings,
           const ImportListener& listener)
        : images_(images),
          to_(to),
          settings_(settings),
          listener_(listener),
          purpose_(purpose_of(images, settings)),
          zip_(to, purpose_,
               [this](const std::string& before) { return unchanged_since(before, purpose_); }) {}

    ImportReport run() {
        find_missing();
        problems_ = problems_of_headers(images_, missing_, to_, listener_);
        if (!problems_.empty() && !settings_.skip_bad)
            refuse(images_, problems_, "; nothing was begun");
        write_missing();
        if (!problems_.empty() && !settings_.skip_bad)
            refuse(images_, problems_, "; the others are kept");
        return finish();
    }

private:
    void find_missing() {
        std::vector<bool> there(static_cast<std::size_t>(images_.count));
        for (std::size_t i = 0; i < zip_.count(); ++i) {
            const auto number = number_in(zip_.name(i));
            if (number && *number < images_.count) there[static_cast<std::size_t>(*number)] = true;
        }
        for (std::int64_t i = 0; i < images_.count; ++i) {
            if (!there[static_cast<std::size_t>(i)]) missing_.push_back(i);
        }
    }

    void write_missing() {
        std::erase_if(missing_, [&](std::int64_t i) { return problems_.contains(i); });
        for (std::size_t first = 0; first < missing_.size(); first += images_per_batch) {
            check_stop(to_, static_cast<std::int64_t>(zip_.count()), images_.count);
            const auto some = std::span(missing_).subspan(
                first, std::min<std::size_t>(images_per_batch, missing_.size() - first));
            std::vector<std::vector<std::uint8_t>> encoded(some.size());
            collect_problems(
                some, [&](std::size_t i) { encoded[i] = encode(images_.read(some[i]), settings_); },
                problems_);
            for (std::size_t i = 0; i < some.size(); ++i) {
                if (!encoded[i].empty())
                    zip_.add(entry_name(some[i]), std::as_bytes(std::span(encoded[i])));
            }
            if (listener_.written) listener_.written(static_cast<std::int64_t>(zip_.count()));
        }
    }

    ImportReport finish() {
        ImportReport report{images_.count - static_cast<std::int64_t>(problems_.size()), {}};
        if (report.images == 0)
            core::fail("{}: none of its {} images can be read, the first: {}", images_.where,
                       images_.count, problems_.begin()->second);
        expect_every_class();
        for (const auto& [i, problem] : problems_) report.skipped.push_back(problem);
        if (!report.skipped.empty())
            core::write_text(skipped_list_of(to_),
                             fmt::format("{}\n", fmt::join(report.skipped, "\n")));
        if (!images_.captions.empty()) add("metadata.jsonl", captions());
        add("dataset.json", labels());
        zip_.commit();
        return report;
    }

    void expect_every_class() const {
        std::vector<std::int64_t> left(static_cast<std::size_t>(images_.classes));
        for (std::size_t i = 0; i < images_.labels.size(); ++i)
            left[static_cast<std::size_t>(images_.labels[i])] +=
                problems_.contains(static_cast<std::int64_t>(i)) ? 0 : 1;
        const auto empty = std::ranges::find(left, 0);
        if (empty == left.end()) return;
        const auto i = static_cast<std::size_t>(empty - left.begin());
        core::fail("{}: no image of the class {} can be read; repair some, or remove the class",
                   images_.where,
                   images_.class_names.empty() ? std::to_string(i) : images_.class_names[i]);
    }

    void add(const std::string& name, const std::string& text) {
        zip_.add(name, std::as_bytes(std::span(text)));
    }

    /// One line per image, as in Hugging Face's imagefolder.
    std::string captions() const {
        std::string lines;
        for (std::int64_t i = 0; i < images_.count; ++i) {
            if (!problems_.contains(i))
                lines +=
                    core::json_text({{"file_name", entry_name(i)},
                                     {"text", images_.captions[static_cast<std::size_t>(i)]}}) +
                    "\n";
        }
        return lines;
    }

    std::string labels() const {
        nlohmann::json labels;
        for (std::size_t i = 0; i < images_.labels.size(); ++i) {
            if (!problems_.contains(static_cast<std::int64_t>(i)))
                labels.push_back({entry_name(static_cast<std::int64_t>(i)), images_.labels[i]});
        }
        nlohmann::json json{{"labels", labels}, {"made_by", json_of(settings_)}};
        json["made_by"]["program"] = "atelier import";
        if (!images_.class_names.empty()) json["class_names"] = images_.class_names;
        return core::json_text(json);
    }

    const EncodedImages& images_;
    fs::path to_;
    const ImportSettings& settings_;
    const ImportListener& listener_;
    std::string purpose_;
    core::ZipWriter zip_;
    std::vector<std::int64_t> missing_;
    Problems problems_;
};

}  // namespace

core::Colour colour_of(std::string_view text) {
    if (text == "white") return core::white;
    if (text == "black") return {0, 0, 0};
    core::Colour colour{};
    bool valid = text.size() == 7 && text[0] == '#';
    for (std::size_t i = 0; valid && i < 3; ++i) {
        const char* begin = text.data() + 1 + 2 * i;
        const auto [end, problem] = std::from_chars(begin, begin + 2, colour[i], 16);
        valid = problem == std::errc{} && end == begin + 2;
    }
    if (!valid)
        throw core::UsageError(fmt::format(
            "--background: \"{}\" is not a colour; use white, black or one such as #ff8800", text));
    return colour;
}

fs::path skipped_list_of(const fs::path& to) {
    return fs::path(to).replace_extension(".skipped.txt");
}

void check_import_target(const fs::path& to, const ImportSettings& settings) {
    if (!settings.replace && fs::exists(to))
        core::fail("{}: exists already; name a new file, or replace it with --force", to.string());
    core::ZipWriter::check_output(to);
}

ImportReport import_images(const EncodedImages& images, const fs::path& to,
                           const ImportSettings& settings, const ImportListener& listener) {
    check_import_target(to, settings);
    images.decoder->options.background = settings.background;
    return Import(images, to, settings, listener).run();
}

}  // namespace atelier::data
