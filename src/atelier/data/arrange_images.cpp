#include "atelier/data/arrange_images.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/text_encoding.h"
#include "atelier/data/caption_metadata.h"
#include "atelier/data/dataset_json.h"
#include "atelier/data/image_layout.h"
#include "atelier/data/labels.h"
#include "atelier/data/sidecar_table.h"

namespace atelier::data {

namespace {

constexpr std::uint64_t largest_sidecar = std::uint64_t{1} << 20;
/// "a, b, c" or "a, b, c and 5 more".
std::string first_names(const std::vector<std::string>& names) {
    constexpr std::size_t most = 3;
    const std::vector<std::string> some(
        names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(most, names.size())));
    return fmt::format("{}{}", fmt::join(some, ", "),
                       names.size() > most ? fmt::format(" and {} more", names.size() - most) : "");
}

class Arranger {
public:
    Arranger(const FileListing& listing, const DataRequest& request)
        : listing_(listing),
          where_(request.path.string()),
          request_(request),
          layout_(listing, where_, request.split),
          sidecars_(listing, layout_.images, layout_.others) {}

    EncodedImages arrange(std::vector<std::size_t>& chosen) {
        made_.where = where_;
        made_.passed_over = layout_.passed_over;
        made_.remarks = layout_.remarks;
        const bool explicit_labels = read_dataset_json() || read_class_files();
        const std::size_t with_caption =
            request_.captions == Captions::ignored ? 0 : read_captions();
        choose_captions_or_classes(explicit_labels, with_caption);
        count_passed_over();
        chosen = layout_.images;
        made_.count = static_cast<std::int64_t>(layout_.images.size());
        for (const std::size_t i : layout_.images) made_.identity += listing_.identity(i) + "\n";
        return std::move(made_);
    }

private:
    const std::string& name(std::size_t file) const { return listing_.files()[file].name; }
    std::int64_t archive(std::size_t file) const { return listing_.files()[file].archive; }

    std::string text_of(std::size_t file, std::uint64_t largest) const {
        std::string text;
        listing_.with_bytes(file, largest, [&](std::span<const std::byte> bytes) {
            text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        });
        return text;
    }

    /// Reads the labels of the topmost dataset.json; returns whether there are any.
    bool read_dataset_json() {
        std::optional<std::size_t> file;
        for (const std::size_t i : layout_.others) {
            const bool higher =
                !file || std::ranges::count(name(i), '/') < std::ranges::count(name(*file), '/');
            if (last_part(name(i)) == "dataset.json" && !layout_.in_other_split(name(i)) && higher)
                file = i;
        }
        if (!file) return false;
        used_.insert(*file);
        const std::string where = listing_.where(*file);
        std::optional<Labelling> labelling =
            parse_labelling(text_of(*file, listing_.largest_text()), where);
        if (!labelling) {
            declared_unlabelled_ = true;
            return false;
        }
        const std::size_t folder = folder_part(name(*file)).size();
        for (const std::size_t i : layout_.images) {
            const auto found = labelling->labels.find(
                name(i).starts_with(folder_part(name(*file))) ? name(i).substr(folder) : name(i));
            if (found == labelling->labels.end())
                core::fail("{}: \"{}\" has no label; either all images have one or none", where,
                           core::printable(name(i)));
            made_.labels.push_back(found->second);
        }
        for (std::size_t i = layout_.images.size(); i < labelling->labels.size(); ++i)
            made_.passed_over.add("label without an image", "labels without an image", where);
        made_.classes = count_classes(made_.labels, where_);
        made_.class_names = std::move(labelling->class_names);
        if (!made_.class_names.empty() &&
            static_cast<std::int64_t>(made_.class_names.size()) != made_.classes) {
            core::fail("{}: names {} classes, the labels are of {}", where,
                       made_.class_names.size(), made_.classes);
        }
        return true;
    }

    bool read_class_files() {
        std::vector<std::int64_t> labels;
        std::vector<std::string> unlabelled;
        std::size_t negative = 0;
        std::string first_negative;
        for (const std::size_t i : layout_.images) {
            const auto file = sidecars_.beside(i, ".cls");
            if (!file) {
                unlabelled.push_back(listing_.where(i));
                continue;
            }
            used_.insert(*file);
            labels.push_back(
                parse_class_text(text_of(*file, largest_sidecar), listing_.where(*file)));
            if (labels.back() < 0 && negative++ == 0) first_negative = listing_.where(*file);
        }
        if (labels.empty()) return false;
        if (!unlabelled.empty())
            core::fail("{}: either all samples have a class (.cls) or none; {} of {} have none",
                       unlabelled.front(), unlabelled.size(), layout_.images.size());
        if (negative == labels.size()) {
            made_.remarks.push_back(
                fmt::format("every .cls is negative, so the images are unlabelled (classes begin "
                            "at 0), the first: {}",
                            first_negative));
            declared_unlabelled_ = true;
            return false;
        }
        if (negative > 0)
            core::fail("{}: the class is negative, as are {} of {}; classes begin at 0",
                       first_negative, negative, labels.size());
        made_.labels = std::move(labels);
        made_.classes = count_classes(made_.labels, where_);
        return true;
    }

    /// Fills captions_, one per image, "" where there is none; returns how many images have one.
    std::size_t read_captions() {
        captions_.assign(layout_.images.size(), {});
        std::unordered_map<std::string, std::size_t> positions;
        for (const std::size_t file : layout_.others) {
            if (!is_metadata(file) || layout_.in_other_split(name(file))) continue;
            for (std::size_t i = 0;
                 positions.size() < layout_.images.size() && i < layout_.images.size(); ++i)
                positions.emplace(
                    SidecarTable::key_of(archive(layout_.images[i]), name(layout_.images[i]), ""),
                    i);
            read_metadata(file, positions);
        }
        std::size_t count = 0;
        for (std::size_t i = 0; i < layout_.images.size(); ++i) {
            if (captions_[i].empty()) read_caption_beside(i);
            count += captions_[i].empty() ? 0 : 1;
        }
        return count;
    }

    bool is_metadata(std::size_t file) const {
        return last_part(name(file)) == "metadata.jsonl" || last_part(name(file)) == "metadata.csv";
    }

    void read_metadata(std::size_t file,
                       const std::unordered_map<std::string, std::size_t>& positions) {
        const std::string where = listing_.where(file);
        const std::string text = text_of(file, listing_.largest_text());
        const std::vector<CaptionLine> lines = last_part(name(file)) == "metadata.csv"
                                                   ? caption_lines_of_csv(text, where)
                                                   : caption_lines_of_json(text, where);
        if (lines.empty()) return;
        used_.insert(file);
        for (const CaptionLine& line : lines) {
            const std::string image =
                plain_name(std::string(folder_part(name(file))) + line.file_name);
            const auto found = positions.find(SidecarTable::key_of(archive(file), image, ""));
            if (found != positions.end()) captions_[found->second] = line.caption;
            else if (!layout_.in_other_split(image)) {
                made_.passed_over.add("line of metadata without an image",
                                      "lines of metadata without an image",
                                      fmt::format("{} ({})", line.where, line.file_name));
            }
        }
    }

    void read_caption_beside(std::size_t image) {
        for (const char* ending : {".txt", ".caption", ".json"}) {
            const auto file = sidecars_.beside(layout_.images[image], ending);
            if (!file) continue;
            captions_[image] =
                std::string_view(ending) == ".json"
                    ? caption_in_json_file(*file)
                    : checked_caption(text_of(*file, largest_sidecar), listing_.where(*file));
            if (!captions_[image].empty()) {
                caption_files_.insert(*file);
                return;
            }
        }
    }

    /// The JSON of a sample may have any content; a broken or large one counts as no caption.
    std::string caption_in_json_file(std::size_t file) const {
        try {
            return caption_in_json(text_of(file, largest_sidecar), listing_.where(file));
        } catch (const core::Error&) {
            return "";
        }
    }

    /// Decides between captions and classes.
    void choose_captions_or_classes(bool explicit_labels, std::size_t with_caption) {
        const bool required = request_.captions == Captions::required;
        if (required && with_caption == 0)
            core::fail(
                "{}: holds no captions; looked for metadata.jsonl, metadata.csv, and a .txt, "
                ".caption or .json beside each image",
                where_);
        if (with_caption > 0 && explicit_labels && !required) {
            made_.remarks.push_back(fmt::format(
                "its classes are read; there are captions too, which captions:{} reads", where_));
            return;
        }
        if (with_caption == layout_.images.size() || required ||
            (with_caption > 0 &&
             (2 * with_caption > layout_.images.size() || !layout_.has_class_folders())))
            return use_captions(with_caption);
        if (with_caption > 0) {
            made_.remarks.push_back(
                fmt::format("{} of {} images have a caption, so their folders are read as classes; "
                            "write the missing ones, or read captions:{}",
                            with_caption, layout_.images.size(), where_));
        }
        if (!explicit_labels && !declared_unlabelled_) use_class_folders();
    }

    void use_captions(std::size_t with_caption) {
        if (with_caption < layout_.images.size()) {
            std::vector<std::string> without;
            for (std::size_t i = 0; i < layout_.images.size(); ++i) {
                if (captions_[i].empty()) without.push_back(listing_.where(layout_.images[i]));
            }
            core::fail(
                "{}: {} of {} images have no caption, or an empty one: {}; write each into a .txt "
                "beside its image, or remove those images",
                where_, without.size(), layout_.images.size(), first_names(without));
        }
        if (!layout_.splits && layout_.has_class_folders() &&
            layout_.folders_below(layout_.split).size() > 1 && !layout_.folders_are_shards()) {
            made_.remarks.push_back(
                "captions are read, not the names of the folders; atelier import with "
                "--no-captions makes classes of those");
        }
        made_.captions = std::move(captions_);
        made_.labels.clear();
        made_.class_names.clear();
        made_.classes = 0;
        used_.insert(caption_files_.begin(), caption_files_.end());
    }

    void use_class_folders() {
        const std::vector<std::size_t>& of_train =
            layout_.splits ? layout_.of_train : layout_.images;
        if (std::ranges::any_of(of_train, [&](std::size_t i) {
                return layout_.lies_directly_in(i, layout_.train);
            }))
            return expect_no_class_folders();
        if (!layout_.is_folder() && layout_.folders_are_shards()) return;
        std::set<std::string> folders;
        if (layout_.is_folder()) folders = layout_.folders_below(layout_.train);
        for (const std::size_t i : of_train) folders.insert(layout_.class_folder(i, layout_.train));
        const std::vector<std::string> sorted(folders.begin(), folders.end());
        for (const std::size_t i : layout_.images) {
            if (layout_.lies_directly_in(i, layout_.split))
                core::fail("{}: has no class; the training images' are the names of their folders",
                           listing_.where(i));
            const std::string own = layout_.class_folder(i, layout_.split);
            const auto known = std::ranges::lower_bound(sorted, own);
            if (known == sorted.end() || *known != own)
                core::fail("{}/{}{}: is not a class of the training data", where_, layout_.split,
                           core::printable(own));
            made_.labels.push_back(known - sorted.begin());
        }
        if (layout_.split == layout_.train) expect_every_class(sorted);
        std::map<std::string, std::string> folder_of;
        for (const std::string& folder : sorted) {
            const std::string name = class_name(folder);
            const auto [other, is_new] = folder_of.emplace(name, folder);
            if (!is_new)
                core::fail(
                    "{}: the folders \"{}\" and \"{}\" are both classes named \"{}\"; rename "
                    "one of them, or put their images together",
                    where_, core::printable(other->second), core::printable(folder), name);
            made_.class_names.push_back(name);
        }
        made_.classes = static_cast<std::int64_t>(sorted.size());
    }

    void expect_every_class(const std::vector<std::string>& folders) const {
        std::vector<bool> occurs(folders.size());
        for (const std::int64_t label : made_.labels)
            occurs[static_cast<std::size_t>(label)] = true;
        const auto missing = std::ranges::find(occurs, false);
        if (missing == occurs.end()) return;
        const std::string& folder = folders[static_cast<std::size_t>(missing - occurs.begin())];
        PassedOver inside;
        for (const std::size_t i : layout_.others) {
            if (name(i).starts_with(layout_.train + folder + "/")) inside.file(name(i));
        }
        core::fail("{}/{}{}: holds no {}; fill the class or remove its folder{}", where_,
                   layout_.train, core::printable(folder), image_endings,
                   inside.count() > 0 ? fmt::format(" ({})", inside.summary()) : "");
    }

    void expect_no_class_folders() const {
        for (const std::size_t i : layout_.images) {
            if (!layout_.lies_directly_in(i, layout_.split)) {
                core::fail(
                    "{}: images lie both in the folder and in \"{}\" below it; either all or none "
                    "have a class",
                    where_, core::printable(layout_.class_folder(i, layout_.split)));
            }
        }
    }

    /// The name of a folder in UTF-8, as JSON and models require.
    std::string class_name(const std::string& folder) {
        if (!core::first_bad_byte(folder)) return folder;
        std::string name = core::from_latin1(folder);
        made_.remarks.push_back(
            fmt::format("the name of the folder \"{}\" is not UTF-8; it is read as Latin-1, \"{}\"",
                        core::printable(folder), name));
        return name;
    }

    void count_passed_over() {
        for (const std::size_t i : layout_.others) {
            if (!used_.contains(i) && !layout_.in_other_split(name(i)))
                made_.passed_over.file(name(i));
        }
    }

    const FileListing& listing_;
    std::string where_;
    const DataRequest& request_;
    EncodedImages made_;
    ImageLayout layout_;
    SidecarTable sidecars_;
    bool declared_unlabelled_ = false;
    std::set<std::size_t> used_, caption_files_;
    std::vector<std::string> captions_;
};

}  // namespace

EncodedImages arrange_images(std::shared_ptr<const FileListing> listing,
                             const DataRequest& request) {
    const std::uint64_t largest_image =
        std::uint64_t{listing->kind() == FileListing::Kind::folder ? 1024U : 64U} << 20;
    std::vector<std::size_t> chosen;
    EncodedImages images = Arranger(*listing, request).arrange(chosen);
    const std::uint32_t longest = listing->kind() == FileListing::Kind::folder
                                      ? images.decoder->options.longest_side
                                      : longest_image_side;
    images.decoder->options.longest_side = longest;
    const auto files = std::make_shared<const std::vector<std::size_t>>(std::move(chosen));
    const auto file = [files](std::int64_t i) { return (*files)[static_cast<std::size_t>(i)]; };
    images.name = [listing, file](std::int64_t i) { return listing->where(file(i)); };
    images.version = [listing, file](std::int64_t i) { return listing->version(file(i)); };
    images.read = [listing, file, largest_image, decoder = images.decoder](std::int64_t i) {
        core::Image image;
        listing->with_bytes(file(i), largest_image, [&](std::span<const std::byte> bytes) {
            image = decoder->decode(bytes, listing->where(file(i)));
        });
        return image;
    };
    images.check = [listing, file, largest_image, decoder = images.decoder](std::int64_t i) {
        const std::string where = listing->where(file(i));
        bool fine = true;
        listing->with_head(file(i), [&](std::span<const std::byte> bytes, std::uint64_t size) {
            try {
                core::check_image_header(bytes, size, where, decoder->options);
            } catch (const core::Error&) {
                if (bytes.size() == size) throw;
                fine = false;  // the header may be longer than the head that was read
            }
        });
        if (!fine)
            listing->with_bytes(file(i), largest_image, [&](std::span<const std::byte> bytes) {
                core::check_image_header(bytes, bytes.size(), where, decoder->options);
            });
    };
    return images;
}

}  // namespace atelier::data
