#include "atelier/pipeline/probe_distance.h"

#include <algorithm>

#include "atelier/core/log.h"
#include "atelier/data/sampling.h"
#include "atelier/metrics/distances.h"
#include "atelier/metrics/features.h"
#include "atelier/metrics/two_d.h"
#include "atelier/report/charts.h"

namespace atelier::pipeline {

namespace {

constexpr std::int64_t max_references = 10000, batch_size = 1000;
constexpr std::int64_t shown_images = 100, image_columns = 10;

/// Mean and covariance of the features of the given samples, read in batches.
metrics::Statistics reference_statistics(const metrics::FeatureExtractor& extractor,
                                         const data::Dataset& data,
                                         const std::vector<std::int64_t>& indices) {
    metrics::FeatureStatistics statistics(extractor.width());
    const auto batch =
        static_cast<std::size_t>(data::samples_per_batch(data.spec().shape, batch_size));
    for (std::size_t first = 0; first < indices.size(); first += batch) {
        statistics.add(extractor
                           .features(data.samples(std::span(indices).subspan(
                               first, std::min(batch, indices.size() - first))))
                           .features);
    }
    return statistics.finish();
}

}  // namespace

std::vector<std::int64_t> probe_references(const data::Dataset& data,
                                           std::span<const std::int64_t> classes) {
    if (classes.empty()) return data::seeded_sample(data, max_references, 0, "probe/reference");
    return data::seeded_sample(data, data::indices_of(data, classes), max_references, 0,
                               "probe/reference");
}

std::function<double(const Tensor& samples)> distance_to_data(
    RunContext& context, std::span<const std::int64_t> classes) {
    const data::Dataset& data = *context.data();
    if (data.spec().kind == data::SampleSpec::Kind::latent)
        return {};  // there is no distance of latents
    const std::vector<std::int64_t> indices = probe_references(data, classes);
    if (data.spec().kind == data::SampleSpec::Kind::points) {
        return [reference = data.samples(indices)](const Tensor& samples) {
            return metrics::sliced_wasserstein(samples.to(at::kCPU), reference);
        };
    }
    const std::string classifier = context.probe_classifier();
    if (classifier.empty()) return {};
    auto extractor = std::make_shared<metrics::FeatureExtractor>(classifier, context.device());
    return [extractor, real_statistics =
                           reference_statistics(*extractor, data, indices)](const Tensor& samples) {
        return metrics::frechet_distance(
            metrics::statistics_of(extractor->features(samples.clamp(-1, 1)).features),
            real_statistics);
    };
}

void draw_samples(const std::filesystem::path& stem, const data::SampleSpec& spec,
                  const Tensor& samples, std::span<const std::int64_t> classes) {
    const Tensor user = data::to_user_space(spec, samples);
    if (spec.kind == data::SampleSpec::Kind::points) {
        core::write_png(
            stem.string() + ".png",
            report::scatter_image(metrics::points_of(user), {classes.begin(), classes.end()}, 480));
        return;
    }
    std::vector<core::Image> images;
    for (std::int64_t i = 0; i < std::min(shown_images, user.size(0)); ++i)
        images.push_back(data::image_of(user[i]));
    core::write_png(stem.string() + ".png", core::grid(images, image_columns));
}

}  // namespace atelier::pipeline
