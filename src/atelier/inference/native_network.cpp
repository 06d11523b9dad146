#include "atelier/inference/native_network.h"

#include <ATen/Parallel.h>

#include <mutex>

#include "atelier/core/error.h"
#include "atelier/inference/one_step_factors.h"
#include "atelier/ops/plan_ops.h"

namespace atelier::inference {

namespace {

constexpr std::int64_t largest_piece = 64;
/// Samples that a thread computes in one go when there are enough of them: each weight that it reads serves them all, and their results still lie in its cache.
constexpr std::int64_t samples_a_thread = 4;

/// What plans ran in, for the next ones: networks that take turns share one.
class Room {
public:
    /// For results of so many numbers, and `threads` threads.
    Room(std::size_t numbers, std::int64_t threads) {
        {
            const std::lock_guard lock(mutex());
            if (!kept().empty()) {
                memory_ = std::move(kept().back());
                kept().pop_back();
            }
        }
        memory_.results.room(numbers);
        if (memory_.scratch.size() < static_cast<std::size_t>(threads)) memory_.scratch.resize(static_cast<std::size_t>(threads));
    }
    ~Room() {
        const std::lock_guard lock(mutex());
        kept().push_back(std::move(memory_));
    }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    float* begin() { return memory_.results.room(0); }
    ops::Scratch& scratch(std::int64_t thread) { return memory_.scratch[static_cast<std::size_t>(thread)]; }

private:
    struct Memory {
        ops::Scratch results;
        std::vector<ops::Scratch> scratch;  // a thread each
    };

    static std::mutex& mutex() {
        static std::mutex only;
        return only;
    }
    static std::vector<Memory>& kept() {
        static auto& only = *new std::vector<Memory>;
        return only;
    }

    Memory memory_;
};

/// Writes the plan of `network` from what `name_inputs(speaker)` names.
template <class NameInputs>
std::unique_ptr<CompiledNetwork> planned(const models::Model& model, std::vector<std::int64_t> widths, const NameInputs& name_inputs) {
    const at::NoGradGuard no_gradients;
    try {
        ops::PlanOps speaker(model.parameters);
        ops::Plan plan = speaker.finished(model.network.forward(speaker, name_inputs(speaker)).raw);
        model.release_pages();
        return std::make_unique<NativeNetwork>(std::move(plan), widths, widths[0]);
    } catch (const ops::PlanOps::Unspoken&) {
        throw core::UsageError(fmt::format("--engine native cannot compute this {}; take --engine openvino", model.network.architecture));
    }
}

}  // namespace

class NativeNetwork::Batch : public CompiledNetwork::Piece {
public:
    Batch(NativeNetwork& network, std::int64_t samples) : network_(network), samples_(samples) {}

    float* input(std::size_t i) override { return network_.inputs_[i].data(); }
    std::int32_t* rows() override { return network_.rows_.data(); }
    const float* computed() override {
        network_.compute(samples_);
        return network_.output_.data();
    }

private:
    NativeNetwork& network_;
    std::int64_t samples_;
};

NativeNetwork::NativeNetwork(ops::Plan plan, const std::vector<std::int64_t>& inputs, std::int64_t outputs)
    : plan_(std::move(plan)), widths_(inputs), inputs_(inputs.size()), outputs_(outputs) {}

void NativeNetwork::in_pieces(std::int64_t samples, const Each& each) {
    const auto room = static_cast<std::size_t>(std::min(samples, largest_piece));
    if (rows_.size() < room) {
        for (std::size_t i = 0; i < inputs_.size(); ++i) inputs_[i].resize(room * static_cast<std::size_t>(widths_[i]));
        output_.resize(room * static_cast<std::size_t>(outputs_));
        rows_.resize(room);
    }
    for (std::int64_t first = 0; first < samples; first += largest_piece) {
        const std::int64_t count = std::min(largest_piece, samples - first);
        Batch piece(*this, count);
        each(piece, first, count);
    }
}

void NativeNetwork::compute(std::int64_t samples) {
    const std::int64_t threads = at::get_num_threads();
    if (samples < 2 * threads) compute_together(samples, threads);
    else compute_side_by_side(samples, threads);
}

void NativeNetwork::compute_together(std::int64_t samples, std::int64_t threads) {
    std::vector<const float*> inputs;
    for (const auto& input : inputs_) inputs.push_back(input.data());
    Room room(plan_.room(samples), threads);
    ops::Barrier barrier(threads);
    ops::by_crew(threads, [&](std::int64_t thread) {
        ops::Plan::run({plan_, room.begin(), samples, inputs.data(), rows_.data(), output_.data(), thread, threads, barrier, room.scratch(thread)});
    });
}

void NativeNetwork::compute_side_by_side(std::int64_t samples, std::int64_t threads) {
    const std::int64_t rounds = (samples + samples_a_thread * threads - 1) / (samples_a_thread * threads), parts = std::min(samples, rounds * threads);
    std::atomic<std::int64_t> next = 0;
    ops::by_crew(threads, [&](std::int64_t) {
        ops::Barrier alone(1);
        Room room(plan_.room((samples + parts - 1) / parts), 1);
        std::vector<const float*> inputs(inputs_.size());
        for (std::int64_t part; (part = next.fetch_add(1)) < parts;) {
            const std::int64_t first = part * samples / parts, count = (part + 1) * samples / parts - first;
            for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = inputs_[i].data() + first * widths_[i];
            ops::Plan::run({plan_, room.begin(), count, inputs.data(), rows_.data() + first, output_.data() + first * outputs_, 0, 1, alone, room.scratch(0)});
        }
    });
}

bool native_speaks(const networks::Network& network) { return network.architecture != "sd_unet" && network.tokens == 0; }

bool native_pays(const networks::Network& network) {
    if (!native_speaks(network)) return false;
    std::int64_t parameters = 0;
    for (const auto& one : networks::trace(network).parameters) parameters += ops::elements(one.shape);
    return parameters <= 16'000'000;
}

std::unique_ptr<CompiledNetwork> native_network(const models::Model& model) {
    const networks::Network& network = model.network;
    std::vector<std::int64_t> widths{ops::elements(network.data_shape), 1};
    if (network.classes > 0) widths.push_back(network.classes);
    return planned(model, widths, [&](ops::PlanOps& speaker) {
        networks::Inputs named{speaker.input(0, network.data_shape), speaker.input(1, {}), std::nullopt};
        if (network.classes > 0) named.labels = speaker.input(2, {network.classes});
        return named;
    });
}

std::unique_ptr<CompiledNetwork> native_one_level(const models::Model& model, const std::vector<std::int64_t>& classes) {
    const networks::Network& network = model.network;
    return planned(model, {ops::elements(network.data_shape)}, [&](ops::PlanOps& speaker) {
        return one_step_inputs(model, classes, speaker.input(0, network.data_shape));
    });
}

}  // namespace atelier::inference
