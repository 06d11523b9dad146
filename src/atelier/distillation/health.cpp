#include "atelier/distillation/health.h"

#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace atelier::distillation {

namespace {

// Where a reading turns from fine to worth a look; from trial runs on points and on Fashion-MNIST (docs/health.md).
constexpr double most_saturation = 0.25, collapsed_diversity = 0.1;
constexpr double most_gan_share = 10.0, most_logit_gap = 8.0, most_fake_lag = 3.0;

using Level = Finding::Level;

void judge_probe(const ProbeReading& probe, std::vector<Finding>& findings) {
    if (!probe.finite) {
        findings.push_back({Level::collapse, "the samples hold values that are not numbers"});
        return;
    }
    if (probe.diversity < collapsed_diversity && probe.was_diverse) {
        findings.push_back({Level::collapse, fmt::format("collapse: the probe samples vary only {:.0f} % as much as the data, after they had "
                                                         "varied well; all look alike", 100 * probe.diversity)});
    } else if (probe.diversity < least_diversity) {
        findings.push_back({Level::warning, fmt::format("the probe samples vary only {:.0f} % as much as the data; early on that is usual, later a "
                                                        "mode may be taking over (more fake-score updates or regression on pairs help)", 100 * probe.diversity)});
    }
    if (probe.saturation > most_saturation) {
        findings.push_back({Level::warning, fmt::format("{:.0f} % of the samples' values lie outside the data's range: over-saturation "
                                                        "(a lagging fake score causes it)", 100 * probe.saturation)});
    }
}

void judge_losses(const Metrics& metrics, std::vector<Finding>& findings) {
    const double share = metric(metrics, "gan_gradient") / metric(metrics, "dm_gradient");
    if (share > most_gan_share) {
        findings.push_back({Level::warning, fmt::format("the GAN's gradient on the samples is {:.0f} times distribution matching's; lower "
                                                        "adm.gan_weight or set it to \"auto\"", share)});
    }
    const double gap = metric(metrics, "real_logit") - metric(metrics, "fake_logit");
    if (gap > most_logit_gap) {
        findings.push_back({Level::warning, fmt::format("the GAN head tells real from generated with a gap of {:.1f}; it has won and its "
                                                        "gradient fades (adm.r1_weight or a lower adm.fake_lr help)", gap)});
    }
    const double lag = metric(metrics, "fake_lag");
    if (lag > most_fake_lag) {
        findings.push_back({Level::warning, fmt::format("the fake score's error is {:.1f} times the teacher's on the same generated samples: it "
                                                        "lags behind the student (raise fake_updates or fake_lr)", lag)});
    }
}

}  // namespace

double metric(const Metrics& metrics, const std::string& name) {
    for (const auto& [key, value] : metrics) {
        if (key == name) return value;
    }
    return std::numeric_limits<double>::quiet_NaN();
}

ProbeReading read_probe(const Tensor& samples, const Tensor& real) {
    ProbeReading reading;
    reading.finite = samples.isfinite().all().item<bool>();
    const double high = real.max().item<double>(), low = real.min().item<double>();
    const double margin = 0.02 * (high - low);
    reading.saturation = ((samples > high + margin) | (samples < low - margin)).to(at::kFloat).mean().item<double>();
    reading.diversity = samples.std(0).mean().item<double>() / (real.std(0).mean().item<double>() + 1e-12);
    return reading;
}

std::vector<Finding> judge(const Metrics& metrics, const ProbeReading& probe) {
    std::vector<Finding> findings;
    judge_probe(probe, findings);
    judge_losses(metrics, findings);
    if (findings.empty()) findings.push_back({Level::ok, "diversity, saturation, gradients and logits are in their usual ranges"});
    return findings;
}

}  // namespace atelier::distillation
