#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/metrics/point.h"

/// Metrics of generated points against a data set's. Points are [N,D] (D is 2 for plots).
namespace atelier::metrics {

/// `count` uniformly random directions of length 1, [count,width] float64.
Tensor random_directions(std::int64_t count, std::int64_t width, std::uint64_t seed);

/// Sliced 1-Wasserstein distance: the absolute difference of the projections' quantiles, averaged
/// over directions [S,D] and 512 evenly spaced quantiles (including 0 and 1, with numpy.quantile's
/// linear interpolation). In the unit of the points.
double sliced_wasserstein(const Tensor& a, const Tensor& b, const Tensor& directions);
double sliced_wasserstein(const Tensor& a, const Tensor& b, std::int64_t directions = 256,
                          std::uint64_t seed = 0);

struct Discrepancy {
    std::vector<double> bandwidths{};  // standard deviations of the kernels; empty: 1/8, 1/4, 1/2
                                       // and 1 times the median distance between points of `b`
    std::int64_t limit = 2000;         // at most this many points of each set, sampled by `seed`
    std::uint64_t seed = 0;
};

/// Unbiased squared maximum mean discrepancy with Gaussian kernels, averaged over the bandwidths
/// (Gretton et al. 2012). May be slightly below 0.
double mmd_squared(const Tensor& a, const Tensor& b, const Discrepancy& settings = {});

/// Mode coverage of a set of points.
struct ModeReport {
    std::vector<double> shares, reference_shares;  // one per mode; strays belong to none
    std::int64_t reached = 0;  // modes with at least half of their reference share
    double worst = 0;          // the smallest ratio of share to reference share
    double strays = 0;         // fraction of points that belong to no mode
};

/// Modes with known `centres` [K,D]: a point belongs to its nearest centre, and is a stray when it
/// is at least 4 `std_dev` from all of them. Reference shares are those of the `reference` points.
ModeReport modes(const Tensor& points, const Tensor& reference, const Tensor& centres,
                 double std_dev);

/// The support of a data set, estimated from its points, for data without known mode centres.
class Support {
public:
    /// Keeps a random half of `reference` [N,D], chosen by `seed`; the held-out half calibrates how
    /// far a true point may be from the kept ones: a stray is farther from its nearest kept point
    /// than 2 times the 99.9 % quantile of the held-out points' distances. `labels` [N] are classes
    /// 0..classes-1. Throws core::Error with fewer than 4 points.
    Support(const Tensor& reference, std::span<const std::int64_t> labels, std::int64_t classes,
            std::uint64_t seed = 0);

    /// The class of each point's nearest kept point (0 if the data are unlabelled), -1 for strays.
    std::vector<std::int64_t> classes_of(const Tensor& points) const;

    /// Mode coverage with each class as a mode: `classes` (of classes_of) against the classes'
    /// shares of the reference.
    ModeReport modes(std::span<const std::int64_t> classes) const;

    double stray_distance() const { return stray_distance_; }

private:
    Tensor kept_;
    std::vector<std::int64_t> kept_labels_;
    std::vector<double> reference_shares_;
    double stray_distance_ = 0;
};

/// The first two coordinates of points [N,D], for charts.
std::vector<Point> points_of(const Tensor& points);

}  // namespace atelier::metrics
