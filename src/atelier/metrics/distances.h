#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"

namespace atelier::metrics {

/// Mean and unbiased covariance of features, all in float64 on the CPU.
struct Statistics {
    Tensor mean;        // [F]
    Tensor covariance;  // [F,F]
    std::int64_t count = 0;
};

/// Accumulates Statistics batch by batch with the centred merge of Chan et al. (1983), which avoids
/// catastrophic cancellation.
class FeatureStatistics {
public:
    explicit FeatureStatistics(std::int64_t width);

    /// Adds `features` [n,width]. Throws core::Error on another shape or non-finite values.
    void add(const Tensor& features);

    /// Throws core::Error with fewer than two samples.
    Statistics finish() const;

private:
    Tensor mean_, scatter_;
    std::int64_t count_ = 0;
};

/// The Statistics of one set of features [N,F].
Statistics statistics_of(const Tensor& features);

/// Throws core::Error, prefixed with `what`, when a symmetric matrix is not a covariance, i.e. has
/// eigenvalues below zero by more than rounding error.
void check_covariance(const Tensor& matrix, const std::string& what);

/// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)): the squared 2-Wasserstein distance of two Gaussians
/// (Frechet 1957; Heusel et al. 2017). The trace of the root is computed as that of
/// (S1^(1/2) S2 S1^(1/2))^(1/2) by symmetric eigendecompositions in float64; covariances may be
/// singular. At least 0. Throws core::Error on a matrix that is not a covariance
/// (check_covariance). On features other than Inception's this is not FID and is not reported as
/// such.
double frechet_distance(const Statistics& a, const Statistics& b);

/// The same distance of two sets of features [N,F] and [M,F], at least two rows each. With fewer
/// than F rows no F x F matrix is formed: the trace of the root is the sum of the singular values
/// of A B^T / sqrt((N-1)(M-1)), with A and B centred.
double frechet_distance(const Tensor& a, const Tensor& b);

struct MeanAndStd {
    double mean = 0, std_dev = 0;
};

/// Inception Score (Salimans et al. 2016) of `count` samples, accumulated batch by batch: exp of
/// the mean KL divergence of p(y|x) from p(y) in each of `splits` equal parts; mean and population
/// standard deviation over the parts.
class InceptionScore {
public:
    /// With `seed`, samples are assigned to parts at random, since samples sorted by class would
    /// give parts of few classes; without, parts are consecutive. Throws core::Error when there are
    /// fewer samples than parts.
    InceptionScore(std::int64_t count, std::int64_t splits, std::optional<std::uint64_t> seed);

    /// Adds `logits` [n,classes] of samples first..first+n-1.
    void add(std::int64_t first, const Tensor& logits);

    MeanAndStd finish() const;

private:
    std::int64_t splits_;
    std::vector<std::int64_t> part_;    // of each sample
    Tensor sums_, entropies_, counts_;  // per part: sums of p(y|x) and p log p, sample counts
};

/// The Inception Score of logits [N,classes], in consecutive parts.
MeanAndStd inception_score(const Tensor& logits, std::int64_t splits = 10);

struct KernelDistance {
    std::int64_t subsets = 100;       // as in torch-fidelity and clean-fid
    std::int64_t subset_size = 1000;  // at most the smaller set's size
    std::uint64_t seed = 0;           // of the subsets, drawn without replacement
};

/// Unbiased squared maximum mean discrepancy with the kernel (x.y/F + 1)^3 (Binkowski et al. 2018,
/// KID), averaged over random subsets of features [N,F] and [M,F]. May be slightly below 0. Only
/// one subset of each set is held in float64 at a time, whatever N and M.
double kernel_distance(const Tensor& a, const Tensor& b, const KernelDistance& settings = {});

/// The same of whole sets (at least two rows each) instead of subsets: for small sets, whose
/// Frechet distance would be mostly bias.
double whole_kernel_distance(const Tensor& a, const Tensor& b);

/// Monge Inception Distance (MIND, Berthet et al. 2026, arXiv 2605.06797) of features [N,F] and
/// [M,F], at least one row each: 3F times the mean, over random directions of length 1, of the
/// squared 2-Wasserstein distance of the projections, which is the mean squared difference of both
/// sets in sorted order. Of the larger set a random subset of the smaller's size is taken. Sets
/// whose means differ by m and that are otherwise equal have 3|m|^2. At least 0, and above it for
/// two sets of one distribution. Throws core::Error on sets that are empty or of other widths.
double monge_distance(const Tensor& a, const Tensor& b, std::int64_t directions,
                      std::uint64_t seed);
/// The same over given directions [D,F] of length 1; `seed` chooses the subset of the larger set.
double monge_distance(const Tensor& a, const Tensor& b, const Tensor& directions,
                      std::uint64_t seed);

/// Directions [count,width] float32, uniform on the unit sphere.
Tensor monge_directions(std::int64_t width, std::int64_t count, std::uint64_t seed);

struct PrecisionRecall {
    double precision = 0;  // fraction of fake samples within a real sample's ball
    double recall = 0;     // fraction of real samples within a fake sample's ball
};

/// Improved precision and recall (Kynkaanniemi et al. 2019): the radius of a ball is the distance
/// to the k-th nearest neighbour in the same set. Features [N,F] and [M,F], more than k rows each;
/// `real_radii` is neighbour_radii(real, k), computed once for many comparisons.
PrecisionRecall precision_recall(const Tensor& real, const Tensor& fake, std::int64_t k = 3);
PrecisionRecall precision_recall(const Tensor& real, const Tensor& real_radii, const Tensor& fake,
                                 std::int64_t k);

struct DensityCoverage {
    double density = 0;   // fake samples per real sample's ball, divided by k; expected 1 for the
                          // real distribution
    double coverage = 0;  // fraction of real samples with a fake one in their ball
};

/// Density and coverage (Naeem et al. 2020), with balls around real samples only.
DensityCoverage density_coverage(const Tensor& real, const Tensor& fake, std::int64_t k = 5);
DensityCoverage density_coverage(const Tensor& real, const Tensor& real_radii, const Tensor& fake,
                                 std::int64_t k);

}  // namespace atelier::metrics
