#include "atelier/data/dataset.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/data_form.h"
#include "atelier/data/idx.h"
#include "atelier/data/image_files.h"
#include "atelier/data/image_npz.h"
#include "atelier/data/memory_dataset.h"
#include "atelier/data/points.h"
#include "atelier/data/prompt_list.h"
#include "atelier/data/toy_points.h"

namespace atelier::data {

const std::vector<std::string>& Dataset::captions() const {
    static const std::vector<std::string> none;
    return none;
}

conditions::Prior prior_of(const Dataset& dataset) {
    if (dataset.classes() == 0) return {{1.0}};
    conditions::Prior prior{std::vector<double>(static_cast<std::size_t>(dataset.classes()))};
    for (const std::int64_t label : dataset.labels())
        prior.weights[static_cast<std::size_t>(label)] += 1;
    return prior;
}

std::vector<std::int64_t> indices_of(const Dataset& dataset,
                                     std::span<const std::int64_t> classes) {
    std::vector<bool> selected(
        static_cast<std::size_t>(std::max<std::int64_t>(dataset.classes(), 1)));
    for (const std::int64_t i : classes) {
        if (i < 0 || i >= static_cast<std::int64_t>(selected.size())) {
            core::fail("the data set has no class {}; it has {}", i, selected.size());
        }
        selected[static_cast<std::size_t>(i)] = true;
    }
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < dataset.size(); ++i) {
        const std::int64_t label =
            dataset.classes() == 0 ? 0 : dataset.labels()[static_cast<std::size_t>(i)];
        if (selected[static_cast<std::size_t>(label)]) indices.push_back(i);
    }
    return indices;
}

namespace {

std::shared_ptr<const Dataset> open_path(const DataRequest& request) {
    const bool captions = request.captions == Captions::required;
    switch (form_at(request.path)) {
        case DataForm::nothing:
            core::fail("{}: there is no such file or folder; data are {}", request.path.string(),
                       data_forms);
        case DataForm::points:
            return open_points(request);
        case DataForm::idx_folder:
            if (captions) break;  // images_in says that there are none
            return open_stored(read_idx_folder(request), request.limit);
        case DataForm::npz:
            if (captions) break;
            return open_stored(read_image_npz(request), request.limit);
        case DataForm::folder:
        case DataForm::tars:
        case DataForm::zip:
            break;
    }
    return open_encoded(images_in(request), request.limit);
}

}  // namespace

std::shared_ptr<const Dataset> open_dataset(const DataRequest& request) {
    if (request.split != "train" && request.split != "test") {
        throw core::UsageError(fmt::format(
            "there is no split \"{}\" of the data; known are train and test", request.split));
    }
    if (request.limit < 0) {
        throw core::UsageError(
            fmt::format("the data's limit is {}; it must be 0 (all) or more", request.limit));
    }
    if (is_toy(request.path)) return open_toy(request);
    if (is_captioned(request.path)) return open_dataset(captions_request(request));
    if (is_prompt_list(request.path)) return open_prompt_list(request);
    try {
        return open_path(request);
    } catch (const std::filesystem::filesystem_error& problem) {
        core::fail("{}: cannot be read ({}); check the permissions", problem.path1().string(),
                   problem.code().message());
    }
}

}  // namespace atelier::data
