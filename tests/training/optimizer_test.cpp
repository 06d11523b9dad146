#include "atelier/training/optimizer.h"

#include <cmath>

#include "training/training_fixtures.h"

namespace atelier::training {
namespace {

using distillation::Optimization;

Optimization plain(double lr) { return {.lr = lr, .weight_decay = 0, .clip = 0}; }

/// AdamW as in Loshchilov & Hutter 2019, algorithm 2, elementwise in double precision.
class Reference {
public:
    Reference(const backends::Parameters& parameters, Optimization settings, std::int64_t total)
        : settings_(settings), total_(total) {
        for (const auto& [name, tensor] : parameters.tensors()) {
            const Tensor flat = tensor.detach().to(at::kDouble).contiguous();
            values_.emplace_back(flat.const_data_ptr<double>(),
                                 flat.const_data_ptr<double>() + flat.numel());
        }
        first_ = second_ = values_;
        for (auto* state : {&first_, &second_}) {
            for (auto& list : *state) std::fill(list.begin(), list.end(), 0.0);
        }
        average_ = values_;
    }

    void update(const std::vector<Tensor>& gradients) {
        double norm = 0;
        for (std::size_t i = 0; i < values_.size(); ++i) {
            for (std::size_t j = 0; j < values_[i].size(); ++j)
                norm += std::pow(gradient_at(gradients[i], j), 2);
        }
        norm = std::sqrt(norm);
        const double scale = norm > settings_.clip ? settings_.clip / norm : 1;
        const double lr = rate();
        const double t = static_cast<double>(++done_);
        const double keep = std::min(settings_.ema_decay, (1 + t) / (10 + t));
        for (std::size_t i = 0; i < values_.size(); ++i) {
            for (std::size_t j = 0; j < values_[i].size(); ++j) {
                const double g = scale * gradient_at(gradients[i], j);
                double &p = values_[i][j], &m = first_[i][j], &v = second_[i][j];
                m = settings_.beta1 * m + (1 - settings_.beta1) * g;
                v = settings_.beta2 * v + (1 - settings_.beta2) * g * g;
                const double m_hat = m / (1 - std::pow(settings_.beta1, t)),
                             v_hat = v / (1 - std::pow(settings_.beta2, t));
                p -= lr * (m_hat / (std::sqrt(v_hat) + 1e-8) + settings_.weight_decay * p);
                average_[i][j] = keep * average_[i][j] + (1 - keep) * p;
            }
        }
    }

    double rate() const {
        const double warm = done_ + 1 < settings_.warmup ? static_cast<double>(done_ + 1) /
                                                               static_cast<double>(settings_.warmup)
                                                         : 1;
        const double start = settings_.decay_from * static_cast<double>(total_),
                     at = static_cast<double>(done_);
        const double fallen =
            at <= start ? 0 : (at - start) / (static_cast<double>(total_) - start);
        return settings_.lr * warm * (1 + (settings_.final_share - 1) * fallen);
    }

    static void expect_near(const backends::Parameters& found,
                            const std::vector<std::vector<double>>& expected) {
        std::size_t i = 0;
        for (const auto& [name, tensor] : found.tensors()) {
            const Tensor flat = tensor.detach().contiguous().view({-1});
            for (std::size_t j = 0; j < expected[i].size(); ++j) {
                EXPECT_NEAR(flat[static_cast<std::int64_t>(j)].item<double>(), expected[i][j], 2e-6)
                    << name << " " << j;
            }
            ++i;
        }
    }
    const std::vector<std::vector<double>>& values() const { return values_; }
    const std::vector<std::vector<double>>& average() const { return average_; }

private:
    static double gradient_at(const Tensor& gradient, std::size_t j) {
        return gradient.defined()
                   ? gradient.contiguous().view({-1})[static_cast<std::int64_t>(j)].item<double>()
                   : 0;
    }

    Optimization settings_;
    std::int64_t total_, done_ = 0;
    std::vector<std::vector<double>> values_, first_, second_, average_;
};

backends::Parameters three_tensors() {
    return backends::Parameters({{"a", values_of("a", 0, {4, 3})},
                                 {"b", values_of("b", 0, {5})},
                                 {"c", at::full({}, 0.7)}});
}

TEST(Optimizer, matches_adamw_in_double_precision_with_warmup_decay_clipping_and_average) {
    const Optimization settings{
        .lr = 0.05,
        .beta1 = 0.8,
        .beta2 = 0.95,
        .weight_decay = 0.2,
        .clip = 3,
        .warmup = 4,
        .decay_from = 0.5,
        .final_share = 0.1,
        .ema_decay = 0.35};  // from the third update on, the decay is the configured one
    constexpr std::int64_t total = 12;
    for (const bool unread : {false, true}) {
        backends::Parameters parameters = three_tensors();
        Optimizer optimizer(parameters, settings, total);
        Reference reference(parameters, settings, total);
        int clipped = 0;
        for (std::int64_t t = 0; t < total; ++t) {
            std::vector<Tensor> gradients{values_of("ga", t, {4, 3}) * (t % 3 == 0 ? 4 : 0.3),
                                          values_of("gb", t, {5}) * 0.5, values_of("gc", t, {})};
            if (t % 4 == 2) gradients[1] = Tensor();  // moments and weights decay nevertheless
            reference.update(gradients);
            const double norm =
                unread ? optimizer.update_unread(gradients, at::zeros({})).item<double>()
                       : optimizer.update(gradients);
            clipped += norm > settings.clip;
            SCOPED_TRACE(t);
            Reference::expect_near(parameters, reference.values());
            Reference::expect_near(optimizer.averaged(), reference.average());
        }
        EXPECT_GT(clipped, 2);
        EXPECT_LT(clipped, total - 2);
        EXPECT_EQ(optimizer.updates_done(), total);
    }
}

TEST(Optimizer, the_rate_warms_up_and_decays_linearly) {
    const Optimization settings{.lr = 2, .warmup = 4, .decay_from = 0.5, .final_share = 0.2};
    const std::vector<double> expected{
        0.5,  1,    1.5,  2,    2,  2,
        1.68, 1.36, 1.04, 0.72, 0.4};  // 10 updates; the last is the one after the end
    for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_NEAR(scheduled_rate(settings, static_cast<std::int64_t>(t), 10), expected[t], 1e-12)
            << t;
    }
    const Optimization constant{.lr = 3};
    for (const std::int64_t t : {0, 5, 9}) EXPECT_EQ(scheduled_rate(constant, t, 10), 3);
    // A stage extended beyond its end at update 4 warms up again.
    distillation::Optimization again = constant;
    again.warmup = 2;
    again.warm_from = 4;
    for (const auto& [t, rate] :
         {std::pair{0, 1.5}, {1, 3.0}, {3, 3.0}, {4, 1.5}, {5, 3.0}, {9, 3.0}})
        EXPECT_NEAR(scheduled_rate(again, t, 10), rate, 1e-12) << t;
}

TEST(Optimizer, returns_the_norm_before_clipping) {
    backends::Parameters parameters({{"a", at::zeros({1})}, {"b", at::zeros({2})}});
    Optimizer optimizer(parameters, {.lr = 0.1, .clip = 1}, 10);
    EXPECT_NEAR(optimizer.update({at::full({1}, 3.0), at::tensor({0.0F, 4.0F})}), 5, 1e-6);
}

TEST(Optimizer, channels_last_gradients_and_weights_are_matched_elementwise) {
    const Tensor weight = values_of("w", 0, {4, 3, 2, 2}),
                 gradient = values_of("g", 0, {4, 3, 2, 2});
    const auto moved = [&](at::MemoryFormat of_weight, at::MemoryFormat of_gradient) {
        backends::Parameters parameters({{"w", weight.clone(of_weight)}});
        Optimizer optimizer(parameters, {.lr = 0.1, .beta1 = 0.5, .ema_decay = 0.9}, 10);
        for (const double size : {1.0, 0.1})
            optimizer.update({(gradient * size).contiguous(of_gradient)});
        return at::stack({parameters.at("w"), optimizer.averaged().at("w")});
    };
    const Tensor expected = moved(at::MemoryFormat::Contiguous, at::MemoryFormat::Contiguous);
    EXPECT_TRUE(
        at::equal(moved(at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast), expected));
    EXPECT_TRUE(
        at::equal(moved(at::MemoryFormat::ChannelsLast, at::MemoryFormat::Contiguous), expected));
    EXPECT_TRUE(
        at::equal(moved(at::MemoryFormat::ChannelsLast, at::MemoryFormat::ChannelsLast), expected));
}

TEST(Optimizer, fixed_frequencies_do_not_decay) {
    backends::Parameters parameters(
        {{"map.freqs", at::full({3}, 2.0f)}, {"map.weight", at::full({3}, 2.0f)}});
    Optimizer optimizer(parameters, {.lr = 0.1, .weight_decay = 0.5, .ema_decay = 0.9}, 10);
    optimizer.update({Tensor(), at::ones({3})});
    EXPECT_TRUE(parameters.at("map.freqs").equal(at::full({3}, 2.0f)));
    EXPECT_FALSE(parameters.at("map.weight").equal(at::full({3}, 2.0f)));
}

TEST(Optimizer, one_gradient_shared_by_two_tensors_is_clipped_once) {
    // Autograd returns the same tensor for both sides of a sum.
    backends::Parameters parameters({{"a", at::zeros({2})}, {"b", at::zeros({2})}});
    Optimizer optimizer(parameters, {.lr = 0.1, .clip = 0.5}, 10);
    const Tensor shared = at::tensor({3.0F, 4.0F});
    optimizer.update({shared, shared});
    const double scale = 0.5 / std::sqrt(50.0);
    EXPECT_TRUE(
        at::allclose(optimizer.state().at("first_moment/a"), at::tensor({0.3F, 0.4F}) * scale));
    EXPECT_TRUE(
        at::equal(optimizer.state().at("first_moment/a"), optimizer.state().at("first_moment/b")));
    EXPECT_TRUE(at::equal(shared, at::tensor({3.0F, 4.0F}))) << "the caller's gradient was changed";
}

TEST(Optimizer, a_non_finite_gradient_updates_nothing) {
    for (const double bad :
         {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
        backends::Parameters parameters = three_tensors();
        Optimizer optimizer(parameters, {.lr = 0.1, .ema_decay = 0.5}, 10);
        optimizer.update({at::ones({4, 3}), at::ones({5}), at::ones({})});
        const backends::Parameters before = optimizer.state().clone();
        EXPECT_FALSE(
            std::isfinite(optimizer.update({at::ones({4, 3}), at::ones({5}), at::full({}, bad)})));
        expect_same_bits(optimizer.state(), before);
        EXPECT_EQ(optimizer.updates_done(), 1);
    }
}

TEST(Optimizer, skips_what_is_not_finite_without_reading_it) {
    const Tensor good = at::ones({}), bad = at::full({}, std::numeric_limits<double>::infinity());
    for (const auto& [gradient, loss] :
         {std::pair(bad, good), std::pair(good, bad), std::pair(good, bad - bad)}) {
        backends::Parameters parameters = three_tensors();
        Optimizer optimizer(parameters, {.lr = 0.1, .clip = 1}, 10);
        const auto gradients = [](const Tensor& last) {
            return std::vector<Tensor>{at::ones({4, 3}), at::ones({5}), last.clone()};
        };
        optimizer.update_unread(gradients(good), good);
        const backends::Parameters before = optimizer.state().clone();
        optimizer.update_unread(gradients(gradient), loss);
        const backends::Parameters after = optimizer.state();
        for (const auto& [name, tensor] : after.tensors()) {
            if (name == "updates") continue;
            EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
        }
    }
}

TEST(Optimizer, one_gradient_shared_by_two_tensors_is_clipped_once_where_it_is_not_read) {
    backends::Parameters parameters({{"a", at::zeros({2})}, {"b", at::zeros({2})}});
    Optimizer optimizer(parameters, {.lr = 0.1, .clip = 0.5}, 10);
    const Tensor shared = at::tensor({3.0F, 4.0F});
    optimizer.update_unread({shared, shared}, at::zeros({}));
    const double scale = 0.5 / std::sqrt(50.0);
    for (const char* moment : {"first_moment/a", "first_moment/b"})
        EXPECT_TRUE(at::allclose(optimizer.state().at(moment), at::tensor({0.3F, 0.4F}) * scale));
}

TEST(Optimizer, counts_beyond_the_precision_of_float32) {
    backends::Parameters parameters = three_tensors();
    Optimizer optimizer(parameters, plain(0.1), std::int64_t{1} << 26);
    backends::Parameters long_run = optimizer.state().clone();
    constexpr std::int64_t many = (std::int64_t{1} << 24) + 1;
    long_run.set("updates", at::full({}, many, at::kLong));
    optimizer.restore(long_run);
    for (int i = 0; i < 3; ++i) optimizer.update({at::ones({4, 3}), at::ones({5}), at::ones({})});
    EXPECT_EQ(optimizer.updates_done(), many + 3);
    long_run.set("updates", at::full({}, 1000.0, at::kFloat));  // as older versions wrote it
    optimizer.restore(long_run);
    EXPECT_EQ(optimizer.updates_done(), 1000);
}

TEST(Optimizer, without_an_average_the_weights_themselves_are_used) {
    backends::Parameters parameters = three_tensors();
    Optimizer optimizer(parameters, plain(0.1), 10);
    EXPECT_TRUE(optimizer.averaged().at("a").is_same(parameters.at("a")));
    EXPECT_FALSE(optimizer.state().contains("ema/a"));
}

TEST(Optimizer, continues_from_a_restored_state_with_the_same_bits) {
    const Optimization settings{.lr = 0.05, .warmup = 6, .decay_from = 0.5, .ema_decay = 0.9};
    const auto step = [](Optimizer& optimizer, std::int64_t t) {
        optimizer.update(
            {values_of("ga", t, {4, 3}), values_of("gb", t, {5}), values_of("gc", t, {})});
    };
    backends::Parameters straight = three_tensors(), resumed = three_tensors();
    Optimizer one(straight, settings, 10);
    for (std::int64_t t = 0; t < 5; ++t) step(one, t);
    const backends::Parameters saved = one.state().clone();
    Optimizer other(resumed, settings, 10);
    step(other, 100);  // the existing state is overwritten
    other.restore(saved);
    for (std::int64_t t = 5; t < 10; ++t) {
        step(one, t);
        step(other, t);
    }
    expect_same_bits(other.state(), one.state());
}

TEST(Optimizer, goes_on_with_anothers_moments_as_if_it_had_made_them) {
    const Optimization settings{.lr = 0.05, .clip = 1.0, .warmup = 0, .decay_from = 1.0};
    const auto steps = [](Optimizer& optimizer, std::int64_t from, std::int64_t to) {
        for (std::int64_t t = from; t < to; ++t)
            optimizer.update(
                {values_of("ga", t, {4, 3}), values_of("gb", t, {5}), values_of("gc", t, {})});
    };
    backends::Parameters straight = three_tensors();
    Optimizer one(straight, settings, 100);
    steps(one, 0, 4);
    backends::Parameters branched = straight.clone(), resumed = straight.clone(),
                         again = straight.clone();
    const backends::Parameters moments = one.moments().clone();
    Optimizer branch(branched, settings, 100), late(resumed, settings, 100);
    EXPECT_TRUE(branch.take_moments(moments));
    steps(branch, 4, 6);
    late.restore(branch.state().clone());
    Optimizer third(again, settings, 100);  // from the moments of one that had taken some
    again.copy_from(branched);
    EXPECT_TRUE(third.take_moments(branch.moments().clone()));
    steps(one, 4, 9);
    steps(branch, 6, 9);
    steps(late, 6, 9);
    steps(third, 6, 9);
    EXPECT_EQ(branch.updates_done(), 5);
    for (const auto* other : {&branched, &resumed, &again}) expect_same_bits(*other, straight);
}

TEST(Optimizer, takes_no_moments_of_other_tensors) {
    backends::Parameters mine = three_tensors(), other({{"a", at::zeros({4, 3})}});
    Optimizer optimizer(mine, {}, 10), narrow(other, {}, 10);
    narrow.update({at::ones({4, 3})});
    EXPECT_FALSE(optimizer.take_moments(narrow.moments()));
    EXPECT_EQ(optimizer.moments().at("first_moment/a").abs().sum().item<float>(), 0);
}

TEST(Optimizer, the_state_of_another_network_is_rejected_by_name) {
    const auto state_of = [](backends::Parameters parameters, double ema) {
        return Optimizer(parameters, {.ema_decay = ema}, 10).state().clone();
    };
    backends::Parameters mine({{"a", at::zeros({2, 2})}, {"b", at::zeros({3})}});
    Optimizer optimizer(mine, {}, 10);
    const auto error_message = [&](const backends::Parameters& state) {
        const std::string message = core::error_of([&] { optimizer.restore(state); });
        core::expect_contains(message, "another network");
        EXPECT_EQ(mine.at("a").sum().item<float>(), 0) << "it was half taken over";
        return message;
    };
    core::expect_contains(
        error_message(state_of(backends::Parameters({{"a", at::ones({2, 2})}}), 0)), "/b\"");
    core::expect_contains(
        error_message(
            state_of(backends::Parameters({{"a", at::ones({2, 2})}, {"b", at::ones({4})}}), 0)),
        "/b\"");
    core::expect_contains(
        error_message(
            state_of(backends::Parameters({{"a", at::ones({4})}, {"b", at::ones({3})}}), 0)),
        "/a\"");
    // A deeper network has all tensors that this one needs, and more.
    core::expect_contains(error_message(state_of(backends::Parameters({{"a", at::ones({2, 2})},
                                                                       {"b", at::ones({3})},
                                                                       {"deeper", at::ones({1})}}),
                                                 0)),
                          "/deeper\"");
    core::expect_contains(
        error_message(
            state_of(backends::Parameters({{"a", at::ones({2, 2})}, {"b", at::ones({3})}}), 0.9)),
        "ema/");
}

}  // namespace
}  // namespace atelier::training
