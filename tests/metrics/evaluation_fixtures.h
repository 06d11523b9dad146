#pragma once

#include <memory>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/json_file.h"
#include "atelier/core/random_streams.h"
#include "atelier/data/memory_dataset.h"

/// Shared fixtures of the evaluation tests: random rows, the golden file and small data sets.
namespace atelier::metrics {

/// Standard normal rows [count,width] float64.
inline Tensor random_rows(std::int64_t count, std::int64_t width, std::uint64_t seed) {
    core::RandomStream stream(seed, "rows");
    std::vector<double> numbers(static_cast<std::size_t>(count * width));
    for (double& number : numbers) number = stream.normal();
    return at::tensor(numbers).reshape({count, width});
}

/// Made by scripts/make_evaluation_golden.py.
inline const nlohmann::json& golden_file() {
    static const nlohmann::json json =
        core::read_json(ATELIER_SOURCE_DIR "/tests/golden/evaluation.json");
    return json;
}

inline double golden(const std::string& name) { return golden_file().at(name).get<double>(); }

inline Tensor golden_rows(const std::string& name) {
    std::vector<double> numbers;
    const auto rows = golden_file().at(name).get<std::vector<std::vector<double>>>();
    for (const auto& row : rows) numbers.insert(numbers.end(), row.begin(), row.end());
    return at::tensor(numbers).reshape({static_cast<std::int64_t>(rows.size()), -1});
}

/// Grey 8x8 images of two classes: noise, with the left (class 0) or right half bright.
inline std::shared_ptr<const data::Dataset> halves(std::int64_t count, std::uint64_t seed) {
    const Tensor noise = (random_rows(count, 64, seed) * 20 + 60).reshape({count, 1, 8, 8});
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < count; ++i) {
        labels.push_back(i % 2);
        noise[i].narrow(2, i % 2 ? 4 : 0, 4).add_(110);
    }
    data::SampleSpec spec;
    spec.shape = {1, 8, 8};
    spec.class_names = {"left", "right"};
    return std::make_shared<data::MemoryDataset>(noise.clamp(0, 255).to(at::kByte), labels, 2, spec,
                                                 0);
}

/// Two Gaussian blobs of labelled points around (-1,0) and (1,0) with standard deviation 0.1.
inline std::shared_ptr<const data::Dataset> blobs(std::int64_t count, std::uint64_t seed) {
    Tensor points = random_rows(count, 2, seed) * 0.1;
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < count; ++i) {
        labels.push_back(i % 2);
        points[i][0].add_(i % 2 ? 1.0 : -1.0);
    }
    data::SampleSpec spec;
    spec.kind = data::SampleSpec::Kind::points;
    spec.shape = {2};
    spec.offset = {0.5, 0.0};
    spec.scale = 2.0;
    return std::make_shared<data::MemoryDataset>(points.to(at::kFloat), labels, 2, spec, 0);
}

}  // namespace atelier::metrics
