#include <mutex>

#include "atelier/training/gradient_watch.h"
#include "atelier/training/stepper.h"

#include "parallel/rank_threads.h"
#include "training/training_fixtures.h"

/// Sums over ranks that begin while gradients are still computed.
namespace atelier::training {
namespace {

using parallel::as_ranks;
using parallel::Ranks;
using parallel::Reduction;

/// A chain of layers, a tensor that no loss depends on, and in some steps another term.
class Chain : public distillation::Stage {
public:
    Chain(std::int64_t micro_batches, std::int64_t apart_every)
        : micro_batches_(micro_batches), apart_every_(apart_every) {}

    std::int64_t steps() const override { return 9; }
    std::vector<distillation::Learner> learners() override {
        return {{"chain", &parameters, {.lr = 0.05, .clip = 1, .ema_decay = 0.9}}};
    }
    std::int64_t micro_batches(std::size_t) const override { return micro_batches_; }
    distillation::Loss loss(std::size_t, std::int64_t step, std::int64_t,
                            std::int64_t micro_batch) override {
        Tensor x = values_of("x", 100 * step + micro_batch, {4, 6});
        for (const char* layer : {"a", "b", "c", "d"})
            x = at::tanh(at::matmul(x, parameters.at(layer))) + x;
        distillation::Loss loss{x.square().mean(), {{"loss", 0.0}}};
        loss.weight = 1.0 / static_cast<double>(micro_batches_);
        if (apart_every_ > 0 && step % apart_every_ == apart_every_ - 1)
            loss.apart = (parameters.at("d") * parameters.at("b")).sum() * 0.1;
        return loss;
    }
    Tensor sample(const backends::Parameters& weights, const Tensor&,
                  const diffusion::Condition&) const override {
        return weights.at("a");
    }

    backends::Parameters parameters{{{"a", values_of("a", 0, {6, 6}) * 0.3},
                                     {"b", values_of("b", 0, {6, 6}) * 0.3},
                                     {"c", values_of("c", 0, {6, 6}) * 0.3},
                                     {"d", values_of("d", 0, {6, 6}) * 0.3},
                                     {"unused", values_of("u", 0, {5})}}};

private:
    std::int64_t micro_batches_, apart_every_;
};

struct Trained {
    std::string state;
    std::vector<std::int64_t> early;  // sums, of each rank
};

Trained train(int world, std::int64_t micro_batches, std::int64_t apart_every,
              Reduction reduction = Reduction::exact, std::int64_t bucket_bytes = 1) {
    std::mutex mutex;
    Trained trained;
    as_ranks(world, [&](Ranks& ranks) {
        Chain chain(micro_batches, apart_every);
        Stepper stepper(chain, reduction, ranks, false, bucket_bytes);
        for (std::int64_t step = 0; step < chain.steps(); ++step) stepper.step(step);
        const std::string state = backends::hash_of(stepper.optimizers()[0].state());
        const std::lock_guard lock(mutex);
        if (trained.state.empty()) trained.state = state;
        EXPECT_EQ(trained.state, state);
        trained.early.push_back(stepper.early_sums());
    });
    return trained;
}

TEST(Overlap, keeps_the_bytes_of_one_process) {
    for (const std::int64_t micro_batches : {1, 2, 4, 6}) {
        for (const std::int64_t apart_every : {0, 1, 3}) {
            SCOPED_TRACE(fmt::format("{} micro-batches, apart {}", micro_batches, apart_every));
            const Trained alone = train(1, micro_batches, apart_every);
            EXPECT_EQ(alone.early, std::vector<std::int64_t>{0});
            for (const int world : {2, 3, 4})
                EXPECT_EQ(train(world, micro_batches, apart_every).state, alone.state) << world;
        }
    }
}

TEST(Overlap, begins_the_sums_of_all_but_unused_tensors_before_the_backward_pass_ends) {
    for (const Reduction reduction : {Reduction::exact, Reduction::floating}) {
        // Of nine updates the first is where the order is learned; the unused tensor never comes.
        for (const std::int64_t early : train(2, 4, 0, reduction).early) EXPECT_EQ(early, 8 * 4);
        // In one bucket all wait for the unused tensor.
        for (const std::int64_t early : train(2, 4, 0, reduction, 1 << 20).early)
            EXPECT_EQ(early, 0);
    }
}

TEST(Overlap, does_an_update_again_in_which_a_gradient_came_late) {
    // In steps 2 and on, b and d have a second gradient once; from then on two are awaited.
    const Trained found = train(2, 2, 3);
    EXPECT_EQ(found.state, train(1, 2, 3).state);
    for (const std::int64_t early : found.early) {
        EXPECT_GT(early, 0);
        EXPECT_LT(early, 8 * 4);
    }
}

TEST(GradientWatch, learns_the_order_and_hands_over_what_is_complete) {
    Chain chain(1, 2);
    chain.parameters.require_gradients(true);
    GradientWatch watch(chain.parameters);
    const auto differentiate = [&](GradientWatch::Session& session, std::int64_t step) {
        const distillation::Loss loss = chain.loss(0, step, 0, 0);
        torch::autograd::grad({loss.value}, chain.parameters.leaves(), {}, std::nullopt, false,
                              true);
        session.next_loss();
        if (loss.apart.defined())
            torch::autograd::grad({loss.apart}, chain.parameters.leaves(), {}, std::nullopt, false,
                                  true);
    };
    const auto expected = [&](std::int64_t step) {
        const distillation::Loss loss = chain.loss(0, step, 0, 0);
        const Tensor value = loss.apart.defined() ? loss.value + loss.apart : loss.value;
        return torch::autograd::grad({value}, chain.parameters.leaves(), {}, std::nullopt, false,
                                     true);
    };
    const auto expect_gradients = [](const std::vector<Tensor>& found,
                                     const std::vector<Tensor>& all) {
        for (std::size_t i = 0; i < all.size(); ++i) {
            ASSERT_EQ(found[i].defined(), all[i].defined()) << i;
            if (!all[i].defined()) continue;
            EXPECT_TRUE(at::allclose(found[i], all[i])) << i;
        }
    };
    const auto of_step_0 = expected(0), of_step_2 = expected(2), of_step_3 = expected(3);
    std::vector<Tensor> handed(5);
    const auto complete = [&](std::size_t i, Tensor gradient) { handed[i] = std::move(gradient); };
    {
        GradientWatch::Session session(watch, complete);
        differentiate(session, 0);
        expect_gradients(session.rest(), of_step_0);  // nothing is known to be complete yet
    }
    EXPECT_EQ(watch.order(), (std::vector<std::int64_t>{3, 2, 1, 0, 4}));
    {
        GradientWatch::Session session(watch, complete);
        differentiate(session, 2);
        EXPECT_FALSE(session.late());
        expect_gradients(handed, of_step_2);
    }
    {
        GradientWatch::Session session(watch, complete);
        differentiate(session, 1);  // with another term
        EXPECT_TRUE(session.late());
    }
    handed.assign(5, Tensor());
    {
        GradientWatch::Session session(watch, complete);
        differentiate(session, 3);
        EXPECT_FALSE(session.late());
        expect_gradients(handed, of_step_3);
    }
    handed.assign(5, Tensor());
    expected(0);  // outside a session nothing is seen
    for (const Tensor& gradient : handed) EXPECT_FALSE(gradient.defined());
}

}  // namespace
}  // namespace atelier::training
