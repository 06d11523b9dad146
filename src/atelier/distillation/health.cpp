#include "atelier/distillation/health.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace atelier::distillation {

namespace {

// Warning thresholds, from trial runs on points and on Fashion-MNIST (docs/health.md).
constexpr double max_saturation = 0.25, collapsed_diversity = 0.1;
constexpr double max_gan_ratio = 10.0, max_logit_gap = 8.0, max_fake_lag = 3.0;

using Level = Finding::Level;

void judge_probe(const ProbeStatistics& probe, std::vector<Finding>& findings) {
    if (!probe.finite) {
        findings.push_back({Level::collapse, "the samples hold values that are not finite"});
        return;
    }
    if (probe.diversity < collapsed_diversity && probe.was_diverse) {
        findings.push_back(
            {Level::collapse, fmt::format("collapse: the probe samples vary only {:.0f} % as much "
                                          "as the data, after they had "
                                          "varied well; all look alike",
                                          100 * probe.diversity)});
    } else if (probe.diversity < min_diversity) {
        findings.push_back(
            {Level::warning,
             fmt::format(
                 "the probe samples vary only {:.0f} % as much as the data; early on that is "
                 "usual, later a "
                 "mode may be taking over (more fake-score updates or regression on pairs help)",
                 100 * probe.diversity)});
    }
    if (probe.saturation > max_saturation) {
        findings.push_back(
            {Level::warning,
             fmt::format(
                 "{:.0f} % of the samples' values lie outside the data's range: over-saturation "
                 "(a lagging fake score causes it)",
                 100 * probe.saturation)});
    }
}

void judge_losses(const Metrics& metrics, std::vector<Finding>& findings) {
    const double ratio = metric(metrics, "gan_gradient") / metric(metrics, "dm_gradient");
    if (ratio > max_gan_ratio) {
        findings.push_back(
            {Level::warning,
             fmt::format(
                 "the GAN's gradient on the samples is {:.0f} times distribution matching's; lower "
                 "adm.gan_weight or set it to \"auto\"",
                 ratio)});
    }
    const double gap = metric(metrics, "real_logit") - metric(metrics, "fake_logit");
    if (gap > max_logit_gap) {
        findings.push_back(
            {Level::warning,
             fmt::format(
                 "the GAN head tells real from generated with a gap of {:.1f}; it has won and its "
                 "gradient fades (adm.r1_weight or a lower adm.fake_lr help)",
                 gap)});
    }
    const double lag = metric(metrics, "fake_lag");
    if (lag > max_fake_lag) {
        findings.push_back(
            {Level::warning, fmt::format("the fake score's error is {:.1f} times the teacher's on "
                                         "the same generated samples: it "
                                         "lags behind the student (raise fake_updates or fake_lr)",
                                         lag)});
    }
}

double mean_of_last(const std::vector<std::array<double, 2>>& series, std::size_t count) {
    double sum = 0;
    const std::size_t n = std::min(series.size(), count);
    for (std::size_t i = series.size() - n; i < series.size(); ++i) sum += series[i][1];
    return sum / static_cast<double>(n);
}

}  // namespace

std::vector<Finding> judge_teacher(const std::vector<std::array<double, 2>>& losses,
                                   const std::vector<std::array<double, 2>>& distances) {
    if (losses.empty()) return {};
    constexpr double runaway = 2 * untrained_loss, worse = 1.25, better = 0.9;
    const double loss = mean_of_last(losses, std::max<std::size_t>(3, losses.size() / 10));
    if (!(loss < runaway)) {
        return {
            {Level::collapse,
             fmt::format("its loss ends at {:.3g}, and a network that has learned nothing has {}: "
                         "training diverged. Lower teacher.lr, and start in another output; "
                         "students cannot be better than this",
                         loss, untrained_loss)}};
    }
    if (loss > 0.97 * untrained_loss) {
        return {
            {Level::warning,
             fmt::format("its loss ends at {:.3g}, and a network that has learned nothing has {}: "
                         "raise teacher.steps, or change teacher.lr, before the students are made",
                         loss, untrained_loss)}};
    }
    if (distances.size() >= 2) {
        const auto& last = distances.back();
        const auto& best =
            *std::ranges::min_element(distances, {}, [](const auto& point) { return point[1]; });
        if (last[1] > worse * best[1]) {
            return {{Level::warning,
                     fmt::format(
                         "its samples were nearest to the data at step {:.0f} (distance {:.3g}) "
                         "and are at {:.3g} in the end: lower teacher.lr, or let it fall earlier "
                         "(teacher.decay_from)",
                         best[0], best[1], last[1])}};
        }
        const auto& before = distances[distances.size() - 2];
        if (last[1] < better * before[1]) {
            return {
                {Level::ok,
                 fmt::format(
                     "loss {:.3g}; its samples still came nearer to the data in the last {:.0f} "
                     "steps (distance {:.3g}, before {:.3g}): more teacher.steps would help",
                     loss, last[0] - before[0], last[1], before[1])}};
        }
        return {{Level::ok, fmt::format("loss {:.3g}; its samples are at a distance of {:.3g} from "
                                        "the data, and hardly came nearer in the last steps",
                                        loss, last[1])}};
    }
    return {{Level::ok, fmt::format("loss {:.3g}, of a network that has learned nothing {}", loss,
                                    untrained_loss)}};
}

double metric(const Metrics& metrics, const std::string& name) {
    for (const auto& [key, value] : metrics) {
        if (key == name) return value;
    }
    return std::numeric_limits<double>::quiet_NaN();
}

double metric(const Measurements& metrics, const std::string& name) {
    for (const auto& [key, measured] : metrics) {
        if (key == name) return measured.value();
    }
    return std::numeric_limits<double>::quiet_NaN();
}

ProbeStatistics probe_statistics(const Tensor& samples, const Tensor& real) {
    ProbeStatistics statistics;
    statistics.finite = samples.isfinite().all().item<bool>();
    const double high = real.max().item<double>(), low = real.min().item<double>();
    const double margin = 0.02 * (high - low);
    statistics.saturation =
        ((samples > high + margin) | (samples < low - margin)).to(at::kFloat).mean().item<double>();
    statistics.diversity =
        samples.std(0).mean().item<double>() / (real.std(0).mean().item<double>() + 1e-12);
    return statistics;
}

std::vector<Finding> judge(const Metrics& metrics, const ProbeStatistics& probe) {
    std::vector<Finding> findings;
    judge_probe(probe, findings);
    judge_losses(metrics, findings);
    if (findings.empty())
        findings.push_back(
            {Level::ok, "diversity, saturation, gradients and logits are in their usual ranges"});
    return findings;
}

}  // namespace atelier::distillation
