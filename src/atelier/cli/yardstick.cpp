#include "atelier/cli/yardstick.h"

#include "atelier/core/log.h"
#include "atelier/evaluation/charts.h"
#include "atelier/evaluation/distances.h"
#include "atelier/evaluation/features.h"
#include "atelier/evaluation/two_d.h"

namespace atelier::cli {

namespace {

constexpr std::size_t most_references = 10000;
constexpr std::int64_t shown_images = 100, image_columns = 10;

std::function<double(const Tensor&)> feature_distance(const std::string& classifier, const Tensor& reference, at::Device device) {
    auto extractor = std::make_shared<evaluation::FeatureExtractor>(classifier, device);
    const auto of_real = evaluation::statistics_of(extractor->features(reference).features);
    return [extractor, of_real](const Tensor& samples) {
        return evaluation::frechet_distance(evaluation::statistics_of(extractor->features(samples.clamp(-1, 1)).features), of_real);
    };
}

}  // namespace

std::function<double(const Tensor& samples)> distance_to_data(Workshop& workshop, std::span<const std::int64_t> classes) {
    const data::Dataset& data = *workshop.data();
    if (data.form().kind == models::DataForm::Kind::latent) return {};  // nothing here measures them
    std::vector<std::int64_t> indices;
    if (classes.empty()) {
        indices.resize(static_cast<std::size_t>(data.size()));
        std::iota(indices.begin(), indices.end(), 0);
    } else {
        indices = data::indices_of(data, classes);
    }
    if (indices.size() > most_references) indices.resize(most_references);
    const Tensor reference = data.samples(indices);
    if (data.form().kind == models::DataForm::Kind::points) {
        return [reference](const Tensor& samples) { return evaluation::sliced_wasserstein(samples.to(at::kCPU), reference); };
    }
    const std::string& classifier = workshop.config().evaluation.classifier;
    if (!std::filesystem::exists(classifier)) {
        core::log::warning("{}: no classifier here, so nothing measures the samples during training (evaluate.classifier)", classifier);
        return {};
    }
    return feature_distance(classifier, reference, workshop.device());
}

void draw_samples(const std::filesystem::path& stem, const models::DataForm& form, const Tensor& samples,
                  std::span<const std::int64_t> classes) {
    const Tensor user = models::to_user_space(form, samples);
    if (form.kind == models::DataForm::Kind::points) {
        core::write_png(stem.string() + ".png",
                        evaluation::scatter_image(evaluation::points_of(user), {classes.begin(), classes.end()}, 480));
        return;
    }
    std::vector<core::Image> images;
    for (std::int64_t i = 0; i < std::min(shown_images, user.size(0)); ++i) images.push_back(models::image_of(user[i]));
    core::write_png(stem.string() + ".png", core::grid(images, image_columns));
}

}  // namespace atelier::cli
