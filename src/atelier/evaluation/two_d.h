#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "atelier/evaluation/charts.h"
#include "atelier/ops/torch.h"

/// How near generated points are to a data set's. Points are [N,D] (D is 2 for everything that is drawn).
namespace atelier::evaluation {

/// `count` uniformly random directions of length 1, [count,width] float64.
Tensor random_directions(std::int64_t count, std::int64_t width, std::uint64_t seed);

/// Sliced 1-Wasserstein distance: mean over directions [S,D] and 512 evenly spaced quantiles (0 and 1 included, interpolated
/// linearly as numpy.quantile does) of the absolute difference of the projections' quantiles. In the points' own unit.
double sliced_wasserstein(const Tensor& a, const Tensor& b, const Tensor& directions);
double sliced_wasserstein(const Tensor& a, const Tensor& b, std::int64_t directions = 256, std::uint64_t seed = 0);

struct Discrepancy {
    std::vector<double> bandwidths{};  // standard deviations of the kernels; empty: 1/8, 1/4, 1/2 and 1 times the median distance
                                       // between points of `b`
    std::int64_t limit = 2000;         // points of each set, drawn by `seed`
    std::uint64_t seed = 0;
};

/// Unbiased squared maximum mean discrepancy of Gaussian kernels, mean over the bandwidths (Gretton et al. 2012). May be slightly
/// below 0.
double mmd_squared(const Tensor& a, const Tensor& b, const Discrepancy& settings = {});

/// Which parts of a distribution were reached, and by how much.
struct ModeReport {
    std::vector<double> shares, reference_shares;  // a number a mode; strays count to none
    std::int64_t reached = 0;                      // modes with at least half of their reference share
    double worst = 0;                              // the least ratio of share to reference share
    double strays = 0;                             // share of points that belong nowhere
};

/// Modes with known `centres` [K,D]: a point belongs to its nearest centre, and is a stray when it is 4 `deviation`s or more from
/// each. Reference shares are those of the `reference` points.
ModeReport modes(const Tensor& points, const Tensor& reference, const Tensor& centres, double deviation);

/// A data set's own points as the measure of where data are, for data without known centres.
class Support {
public:
    /// One half of `reference` [N,D], drawn by `seed`, is kept; the other half, held out, says how far from the kept ones a true
    /// point may lie: a stray is a point farther from its nearest kept point than 2 times the 99.9 % quantile of the held-out
    /// points' distances to theirs. `labels` [N] are classes 0..classes-1. Throws core::Error with fewer than 4 points.
    Support(const Tensor& reference, std::span<const std::int64_t> labels, std::int64_t classes, std::uint64_t seed = 0);

    /// The class of each point's nearest kept point (0 where the data are unlabelled), -1 for strays.
    std::vector<std::int64_t> classes_of(const Tensor& points) const;

    /// Each class is a mode: what classes_of found, against the classes' shares of the reference.
    ModeReport modes(std::span<const std::int64_t> classes) const;

    double stray_distance() const { return stray_distance_; }

private:
    Tensor kept_;
    std::vector<std::int64_t> kept_labels_;
    std::vector<double> reference_shares_;
    double stray_distance_ = 0;
};

/// The first two coordinates of points [N,D], as charts want them.
std::vector<Point> points_of(const Tensor& points);

}  // namespace atelier::evaluation
