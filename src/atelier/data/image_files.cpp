#include "atelier/data/image_files.h"

#include "atelier/core/error.h"
#include "atelier/data/arrange_images.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/data_form.h"
#include "atelier/data/idx.h"
#include "atelier/data/image_folder.h"
#include "atelier/data/image_npz.h"
#include "atelier/data/image_tar.h"
#include "atelier/data/image_zip.h"

namespace atelier::data {

namespace {

/// Images without captions, which `request` must not require.
EncodedImages numbers_of(StoredImages images, const DataRequest& request) {
    const std::string where = request.path.string();
    if (request.captions == Captions::required)
        core::fail(
            "{}: holds images and classes, no captions; those are read from folders, .zip and .tar",
            where);
    return encoded(std::move(images), where);
}

EncodedImages read_form(const DataRequest& request) {
    const std::filesystem::path& path = request.path;
    switch (form_at(path)) {
        case DataForm::nothing:
            core::fail("{}: there is no such file or folder; images are imported from {}",
                       path.string(), image_forms);
        case DataForm::folder:
            return arrange_images(files_of_folder(path), request);
        case DataForm::tars:
            return arrange_images(files_of_tars(path), request);
        case DataForm::zip:
            return arrange_images(files_of_zip(path), request);
        case DataForm::idx_folder:
            return numbers_of(read_idx_folder(request), request);
        case DataForm::npz:
            return numbers_of(read_image_npz(request), request);
        case DataForm::points:
            break;
    }
    core::fail("{}: holds no images; those are imported from {}", path.string(), image_forms);
}

}  // namespace

EncodedImages images_in(const DataRequest& request) {
    try {
        return read_form(is_captioned(request.path) ? captions_request(request) : request);
    } catch (const std::filesystem::filesystem_error& problem) {
        core::fail("{}: cannot be read ({}); check the permissions", problem.path1().string(),
                   problem.code().message());
    }
}

}  // namespace atelier::data
