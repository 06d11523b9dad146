#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "atelier/ops/torch.h"

namespace atelier::evaluation {

/// Mean and unbiased covariance of features, all in float64 on the CPU.
struct Statistics {
    Tensor mean;        // [F]
    Tensor covariance;  // [F,F]
    std::int64_t count = 0;
};

/// Gathers Statistics batch by batch; sums start at zero and are merged centred (Chan et al. 1983), so that no digits cancel.
class FeatureStatistics {
public:
    explicit FeatureStatistics(std::int64_t width);

    /// Adds `features` [n,width]. Throws core::Error on another shape or numbers that are not finite.
    void add(const Tensor& features);

    /// Throws core::Error with fewer than two samples.
    Statistics finish() const;

private:
    Tensor mean_, scatter_;
    std::int64_t count_ = 0;
};

/// The Statistics of one set of features [N,F].
Statistics statistics_of(const Tensor& features);

/// Throws core::Error, which begins with `what`, when a symmetric matrix is no covariance: when it
/// has eigenvalues below zero by more than rounding.
void check_covariance(const Tensor& matrix, const std::string& what);

/// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)): the squared 2-Wasserstein distance of two Gaussians
/// (Frechet 1957; Heusel et al. 2017), the root's trace as that of (S1^(1/2) S2 S1^(1/2))^(1/2) by
/// symmetric eigen-decompositions in float64, singular covariances included. At least 0; throws
/// core::Error where a covariance is none (check_covariance). On features of our own classifier
/// this is no FID and is never called so.
double frechet_distance(const Statistics& a, const Statistics& b);

/// The same distance of two sets of features [N,F] and [M,F], two rows or more each. Where they are fewer than F, without any matrix of F x F: the root's
/// trace is the sum of the singular values of A B^T / sqrt((N-1)(M-1)), A and B centred.
double frechet_distance(const Tensor& a, const Tensor& b);

struct MeanAndDeviation {
    double mean = 0, deviation = 0;
};

/// Inception Score (Salimans et al. 2016) of `count` samples, gathered batch by batch: exp of the
/// mean KL divergence of p(y|x) from p(y), over `splits` equal parts; mean and (population)
/// standard deviation over the parts.
class InceptionScore {
public:
    /// With `seed` a sample's part is random: samples in the order of their classes would make
    /// parts of a few classes each. Without, parts are consecutive. Throws core::Error when there
    /// are fewer samples than parts.
    InceptionScore(std::int64_t count, std::int64_t splits, std::optional<std::uint64_t> seed);

    /// Adds `logits` [n,classes] of samples first..first+n-1.
    void add(std::int64_t first, const Tensor& logits);

    MeanAndDeviation finish() const;

private:
    std::int64_t splits_;
    std::vector<std::int64_t> part_;    // of each sample
    Tensor sums_, entropies_, counts_;  // of p(y|x), of p log p and of samples, per part
};

/// The same of logits [N,classes], in consecutive parts.
MeanAndDeviation inception_score(const Tensor& logits, std::int64_t splits = 10);

struct KernelDistance {
    std::int64_t subsets = 100;       // as torch-fidelity and clean-fid have them
    std::int64_t subset_size = 1000;  // or the smaller set's size
    std::uint64_t seed = 0;           // draws the subsets, without replacement
};

/// Unbiased squared maximum mean discrepancy with the kernel (x.y/F + 1)^3 (Binkowski et al. 2018,
/// KID), mean over random subsets of features [N,F] and [M,F]. May be slightly below 0. In memory:
/// a subset of each in float64, whatever N and M.
double kernel_distance(const Tensor& a, const Tensor& b, const KernelDistance& settings = {});

/// The same of whole sets, two rows or more each, without subsets: for small sets, whose Frechet
/// distance would be mostly bias.
double whole_kernel_distance(const Tensor& a, const Tensor& b);

struct PrecisionRecall {
    double precision = 0;  // share of fake samples within a real sample's ball
    double recall = 0;     // share of real samples within a fake sample's ball
};

/// Improved precision and recall (Kynkaanniemi et al. 2019): a ball reaches to its sample's k-th neighbour in its own set.
/// Features [N,F] and [M,F], more than k rows each; `real_radii` is neighbour_radii(real, k), for who compares much with one set.
PrecisionRecall precision_recall(const Tensor& real, const Tensor& fake, std::int64_t k = 3);
PrecisionRecall precision_recall(const Tensor& real, const Tensor& real_radii, const Tensor& fake, std::int64_t k);

struct DensityCoverage {
    double density = 0;   // fake samples in a real sample's ball, per k; 1 is expected of the real distribution
    double coverage = 0;  // share of real samples with a fake one in their ball
};

/// Density and coverage (Naeem et al. 2020), with balls around real samples only.
DensityCoverage density_coverage(const Tensor& real, const Tensor& fake, std::int64_t k = 5);
DensityCoverage density_coverage(const Tensor& real, const Tensor& real_radii, const Tensor& fake, std::int64_t k);

}  // namespace atelier::evaluation
