#include "atelier/conditions/prompt_partition.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "atelier/conditions/dot.h"
#include "atelier/conditions/kmeans.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/core/progress.h"
#include "atelier/core/random_streams.h"

namespace atelier::conditions {

namespace {

constexpr int restarts = 4, iterations = 40;  // of k-means on the sample
constexpr int passes = 4;                     // over all rows, afterwards
constexpr int balancing_rounds = 8;           // alternating offsets and centroids
constexpr std::int64_t min_rows_per_student = 32;
constexpr std::int64_t max_students = 65536;
constexpr std::size_t max_central = 5;
constexpr const char* balanced_method = "balanced";

std::size_t at(std::int64_t k) { return static_cast<std::size_t>(k); }

std::vector<std::int64_t> sampled_rows(const Embeddings& embeddings,
                                       const PromptPartitionRequest& request) {
    const std::int64_t count = std::min(
        embeddings.rows(), std::max(request.sample, min_rows_per_student * request.students));
    std::vector<std::int64_t> rows =
        core::RandomStream(request.seed, "partition/sample").permutation(embeddings.rows());
    rows.resize(at(count));
    std::ranges::sort(rows);  // so that the file is read from front to back
    return rows;
}

std::vector<std::vector<double>> rows_of(const Embeddings& embeddings,
                                         const std::vector<std::int64_t>& which) {
    std::vector<std::vector<double>> rows;
    rows.reserve(which.size());
    std::vector<float> row(embeddings.length());
    for (const std::int64_t i : which) {
        embeddings.unit_row(i, row);
        rows.emplace_back(row.begin(), row.end());
    }
    return rows;
}

/// Sums of rows per cell, which give the next centroids.
class CellMeans {
public:
    CellMeans(std::size_t cells, std::size_t length) : sums_(cells, std::vector<double>(length)) {}

    template <class Row>
    void add(std::int64_t cell, const Row& row) {
        auto& sum = sums_[at(cell)];
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += row[i];
    }

    /// Sets `centroids` to the normalised sums. A cell without rows, or with rows that cancel,
    /// keeps its centroid.
    void move(std::vector<std::vector<float>>& centroids) const {
        for (std::size_t k = 0; k < sums_.size(); ++k) {
            const double length = std::sqrt(dot(sums_[k].data(), sums_[k].data(), sums_[k].size()));
            if (length < 1e-9) continue;
            std::ranges::transform(sums_[k], centroids[k].begin(),
                                   [&](double x) { return static_cast<float>(x / length); });
        }
    }

private:
    std::vector<std::vector<double>> sums_;
};

/// Moves every centroid to the mean of its cell over all rows; returns how many rows changed cells,
/// and updates `owners`.
std::int64_t refine_centroids(const Embeddings& embeddings, PromptPartition& partition,
                              std::vector<std::int32_t>& owners) {
    const Router router = partition.router();
    CellMeans means(partition.centroids.size(), embeddings.length());
    std::vector<float> row(embeddings.length());
    std::int64_t changed = 0;
    core::Progress progress("moving centroids", embeddings.rows(), "prompts");
    for (std::int64_t i = 0; i < embeddings.rows(); ++i) {
        embeddings.unit_row(i, row);
        const auto owner = static_cast<std::int32_t>(router.route(std::span<const float>(row)));
        changed += owner != owners[at(i)];
        owners[at(i)] = owner;
        means.add(owner, row);
        if (i % 1024 == 0) progress.update(i);
    }
    progress.update(embeddings.rows());
    means.move(partition.centroids);
    return changed;
}

/// Offsets under which the cells of some rows are equally large: the prices of an auction, found by
/// decreasing steps against the surplus of each cell (the dual of the assignment problem; Bertsekas
/// 1988). The offsets with the smallest largest cell are kept.
class Balance {
public:
    explicit Balance(const std::vector<std::vector<double>>& rows, const PromptPartition& partition)
        : students_(partition.centroids.size()),
          rows_(rows.size()),
          cosines_(rows_ * students_),
          offsets_(partition.offsets) {
        std::vector<double> centroid;
        for (std::size_t k = 0; k < students_; ++k) {
            centroid.assign(partition.centroids[k].begin(), partition.centroids[k].end());
            for (std::size_t i = 0; i < rows_; ++i) {
                cosines_[i * students_ + k] =
                    static_cast<float>(dot(rows[i].data(), centroid.data(), centroid.size()));
            }
        }
    }

    std::vector<float> offsets() {
        constexpr int steps = 400;
        constexpr float first = 0.02F;
        std::vector<float> best = offsets_;
        std::vector<std::size_t> size = sizes();
        double least = largest_share(size);
        for (int step = 0; step < steps && least > 1.005; ++step) {
            const float length = first / (1 + 0.05F * static_cast<float>(step));
            for (std::size_t k = 0; k < students_; ++k) {
                // A cell of at least twice the mean size moves by the full step.
                const double surplus =
                    static_cast<double>(size[k] * students_) / static_cast<double>(rows_) - 1;
                offsets_[k] -= length * static_cast<float>(std::min(1.0, surplus));
            }
            size = sizes();
            if (const double now = largest_share(size); now < least) {
                least = now;
                best = offsets_;
            }
        }
        return offsets_ = best;
    }

    std::vector<std::int64_t> owners() const {
        std::vector<std::int64_t> owners(rows_);
        for (std::size_t i = 0; i < rows_; ++i) {
            const float* cosine = &cosines_[i * students_];
            std::size_t best = 0;
            for (std::size_t k = 1; k < students_; ++k) {
                if (cosine[k] + offsets_[k] > cosine[best] + offsets_[best]) best = k;
            }
            owners[i] = static_cast<std::int64_t>(best);
        }
        return owners;
    }

private:
    std::vector<std::size_t> sizes() const {
        std::vector<std::size_t> size(students_);
        for (const std::int64_t k : owners()) ++size[at(k)];
        return size;
    }

    double largest_share(const std::vector<std::size_t>& size) const {
        return static_cast<double>(*std::ranges::max_element(size) * students_) /
               static_cast<double>(rows_);
    }

    std::size_t students_, rows_;
    std::vector<float> cosines_;  // [row][student]
    std::vector<float> offsets_;
};

void balance(const std::vector<std::vector<double>>& rows, PromptPartition& partition) {
    core::Progress progress("balancing cells", balancing_rounds, "rounds");
    for (int round = 0; round < balancing_rounds; ++round) {
        Balance balance(rows, partition);
        partition.offsets = balance.offsets();
        progress.update(round + 1);
        if (round + 1 == balancing_rounds) return;  // the offsets must fit the final centroids
        CellMeans means(partition.centroids.size(), rows[0].size());
        const auto owners = balance.owners();
        for (std::size_t i = 0; i < rows.size(); ++i) means.add(owners[i], rows[i]);
        means.move(partition.centroids);
    }
}

/// Keeps the rows nearest to a centroid, nearest first; ties go to the earlier row.
class NearestRows {
public:
    void offer(std::int64_t row, float score) {
        const auto position =
            std::ranges::find_if(found_, [&](const auto& one) { return score > one.first; });
        found_.insert(position, {score, row});
        if (found_.size() > max_central) found_.pop_back();
    }
    std::vector<std::int64_t> rows() const {
        std::vector<std::int64_t> rows;
        for (const auto& one : found_) rows.push_back(one.second);
        return rows;
    }

private:
    std::vector<std::pair<float, std::int64_t>> found_;
};

}  // namespace

std::string PromptPartition::hash() const {
    std::string text = fmt::format("prompts {} {} {}\n", students(),
                                   centroids.empty() ? 0 : centroids[0].size(), null_owner);
    const auto add = [&](const std::vector<float>& values) {
        text.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    };
    for (const auto& centroid : centroids) add(centroid);
    add(offsets);
    return core::sha256(text);
}

std::vector<std::string> prompt_partition_methods() { return {"kmeans", balanced_method}; }

PromptPartition partition_prompts(const Embeddings& embeddings,
                                  const PromptPartitionRequest& request) {
    const std::vector<std::string> methods = prompt_partition_methods();
    if (std::ranges::find(methods, request.method) == methods.end()) {
        throw core::UsageError(fmt::format("prompts are not split by \"{}\"; known are {}",
                                           request.method, fmt::join(methods, ", ")));
    }
    if (request.students < 1 || request.students > max_students) {
        throw core::UsageError(
            fmt::format("there can be 1 to {} students, not {}", max_students, request.students));
    }
    if (embeddings.rows() < request.students) {
        throw core::UsageError(
            fmt::format("{} prompts cannot be split among {} students; ask for fewer",
                        embeddings.rows(), request.students));
    }
    const auto chosen = sampled_rows(embeddings, request);
    const auto rows = rows_of(embeddings, chosen);
    core::Progress progress("k-means", std::int64_t{restarts} * iterations, "iterations");
    const Clusters found =
        spherical_kmeans(rows, {.clusters = request.students,
                                .seed = request.seed,
                                .restarts = restarts,
                                .iterations = iterations,
                                .on_iteration = [&](int done) { progress.update(done); }});
    PromptPartition partition;
    partition.method = request.method;
    partition.offsets.resize(found.centroids.size());
    for (const auto& centroid : found.centroids)
        partition.centroids.emplace_back(centroid.begin(), centroid.end());
    if (request.method == balanced_method) {
        balance(rows, partition);
    } else if (chosen.size() < at(embeddings.rows())) {
        std::vector<std::int32_t> owners(at(embeddings.rows()), -1);
        for (int pass = 0; pass < passes; ++pass) {
            if (refine_centroids(embeddings, partition, owners) * 1000 < embeddings.rows()) break;
        }
    }
    return partition;
}

PromptSurvey survey(const PromptPartition& partition, const Embeddings& embeddings) {
    const Router router = partition.router();
    const auto students = at(partition.students());
    PromptSurvey survey{.cells = std::vector<PromptSurvey::Cell>(students),
                        .owners = std::vector<std::int32_t>(at(embeddings.rows())),
                        .margins = std::vector<float>(at(embeddings.rows())),
                        .borders = std::vector(students, std::vector<std::int64_t>(students))};
    std::vector<NearestRows> central(students);
    std::vector<float> row(embeddings.length());
    core::Progress progress("placing prompts", embeddings.rows(), "prompts");
    for (std::int64_t i = 0; i < embeddings.rows(); ++i) {
        embeddings.unit_row(i, row);
        const Router::Decision decision = router.decide(row);
        auto& cell = survey.cells[at(decision.student)];
        const float cosine = decision.score - partition.offsets[at(decision.student)];
        ++cell.size;
        cell.cosine += cosine;
        central[at(decision.student)].offer(i, cosine);
        survey.owners[at(i)] = static_cast<std::int32_t>(decision.student);
        survey.margins[at(i)] = decision.margin;
        if (decision.runner_up >= 0) ++survey.borders[at(decision.student)][at(decision.runner_up)];
        if (i % 1024 == 0) progress.update(i);
    }
    progress.update(embeddings.rows());
    for (std::size_t k = 0; k < students; ++k) {
        if (survey.cells[k].size > 0)
            survey.cells[k].cosine /= static_cast<double>(survey.cells[k].size);
        survey.cells[k].central = central[k].rows();
    }
    return survey;
}

double imbalance(const PromptSurvey& survey) {
    std::int64_t largest = 0;
    for (const auto& cell : survey.cells) largest = std::max(largest, cell.size);
    return static_cast<double>(largest) * static_cast<double>(survey.cells.size()) /
           static_cast<double>(survey.owners.size());
}

}  // namespace atelier::conditions
